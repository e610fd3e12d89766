//! What is held, by name and version, so that a new stream need not send it again.

use std::collections::BTreeMap;

use cache::Str;
use prost::encoding::encoded_len_varint;
use rustc_hash::FxHashMap;

/// The version of a resource, as the control plane calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// Lower-case hexadecimal without leading zeros, which is how istiod writes its content hashes.
    Hash(u64),
    /// Anything else.
    Text(Str),
    /// An older content is held: what came last could not be used, and has to be sent again.
    Stale,
}

impl Version {
    pub(crate) fn parse(text: &str) -> Self {
        let canonical = |value: &u64| !text.starts_with('0') && format!("{value:x}") == text;
        match u64::from_str_radix(text, 16).ok().filter(canonical) {
            Some(hash) => Self::Hash(hash),
            None => Self::Text(Str::from(text)),
        }
    }

    fn text(&self) -> Option<String> {
        match self {
            Self::Hash(hash) => Some(format!("{hash:x}")),
            Self::Text(text) => Some(text.to_string()),
            Self::Stale => None,
        }
    }
}

/// The names of all resources held of one type, with their versions.
#[derive(Debug, Default)]
pub(crate) struct Versions(FxHashMap<Str, Version>);

impl Versions {
    /// Returns the name as it is held, so that equal names are one string.
    pub(crate) fn name(&self, name: &str) -> Option<&Str> {
        self.0.get_key_value(name).map(|(name, _)| name)
    }

    /// Sets a version; tells whether the name is new.
    pub(crate) fn set(&mut self, name: Str, version: Version) -> bool {
        self.0.insert(name, version).is_none()
    }

    /// Adds others, in place of what has their names.
    pub(crate) fn take(&mut self, others: Self) {
        if self.0.is_empty() {
            *self = others;
        } else {
            self.0.extend(others.0);
        }
    }

    pub(crate) fn into_names(self) -> impl Iterator<Item = Str> {
        self.0.into_keys()
    }

    /// Marks what is held under a name, if anything, as older than what the control plane sent.
    pub(crate) fn set_stale(&mut self, name: &str) {
        if let Some(version) = self.0.get_mut(name) {
            *version = Version::Stale;
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Returns `initial_resource_versions`, and the names that are held but not in there: the stale ones, or all if the versions
    /// would take more than `limit` bytes of a request.
    pub(crate) fn initial(&self, limit: usize) -> (BTreeMap<String, String>, Vec<Str>) {
        if self.0.iter().map(|(name, version)| encoded(name, version)).sum::<usize>() > limit {
            return (BTreeMap::new(), self.0.keys().cloned().collect());
        }
        let (mut versions, mut unsent) = (BTreeMap::new(), Vec::new());
        for (name, version) in &self.0 {
            match version.text() {
                Some(text) => drop(versions.insert(name.to_string(), text)),
                None => unsent.push(name.clone()),
            }
        }
        (versions, unsent)
    }
}

/// Returns how many bytes an entry takes in a request, at most.
fn encoded(name: &str, version: &Version) -> usize {
    let version = match version {
        Version::Hash(_) => 16,
        Version::Text(text) => text.len(),
        Version::Stale => return 0,
    };
    let delimited = |content: usize| 1 + encoded_len_varint(content as u64) + content;
    delimited(delimited(name.len()) + delimited(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(versions: &[(&str, &str)]) -> Versions {
        Versions(versions.iter().map(|(name, version)| (Str::from(*name), Version::parse(version))).collect())
    }

    #[test]
    fn a_version_is_sent_as_it_came() {
        for text in
            ["b349ba343f5c2562", "1", "ffffffffffffffff", "0", "00ab", "AB", "", "+a", "10000000000000000", "v1"]
        {
            assert_eq!(Version::parse(text).text().as_deref(), Some(text));
        }
        assert!(matches!(Version::parse("b349ba343f5c2562"), Version::Hash(0xb349_ba34_3f5c_2562)));
    }

    #[test]
    fn what_was_rejected_is_left_out() {
        let mut versions = of(&[("a", "1"), ("b", "2")]);
        versions.set_stale("b");
        versions.set_stale("c");
        assert_eq!(versions.initial(100), ([("a".to_owned(), "1".to_owned())].into(), vec!["b".into()]));
    }

    #[test]
    fn versions_that_do_not_fit_are_not_sent() {
        let names: Vec<_> = (1..200).map(|i| format!("{i:x}").repeat(i)).collect();
        let versions = of(&names.iter().map(|name| (name.as_str(), "b349ba343f5c2562")).collect::<Vec<_>>());
        let request = crate::proto::discovery::DeltaDiscoveryRequest {
            initial_resource_versions: versions.initial(usize::MAX).0,
            ..Default::default()
        };
        let size = prost::Message::encoded_len(&request);
        assert_eq!(versions.initial(size).1, [""; 0]);
        let (sent, unsent) = versions.initial(size - 1);
        assert_eq!((sent.len(), unsent.len()), (0, names.len()));
    }
}
