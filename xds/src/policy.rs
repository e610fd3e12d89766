//! Authorization policies, which nothing here enforces: kept in the words of ztunnel's local configuration, so that a dump
//! shows them.

use std::net::IpAddr;

use prost::Message;
use serde_json::{Value, json};

use crate::{
    convert::{Unusable, brief, short},
    proto::security::{self, string_match::MatchType},
};

/// Makes a policy of its message. Its `namespace/name` must be the resource's name.
pub(crate) fn convert(name: &str, content: &[u8]) -> Result<Value, Unusable> {
    let policy = security::Authorization::decode(content)?;
    if policy.name.is_empty() {
        return Err(Unusable::Missing("name"));
    }
    short("name", name)?;
    if name.split_once('/') != Some((&policy.namespace, &policy.name)) {
        return Err(Unusable::Name(brief(&format!("{}/{}", policy.namespace, policy.name))));
    }
    let scope = match security::Scope::try_from(policy.scope) {
        Ok(security::Scope::Global) => "Global",
        Ok(security::Scope::Namespace) => "Namespace",
        Ok(security::Scope::WorkloadSelector) => "WorkloadSelector",
        Err(_) => return Err(Unusable::Value { field: "scope", value: policy.scope }),
    };
    let action = match security::Action::try_from(policy.action) {
        Ok(security::Action::Allow) => "Allow",
        Ok(security::Action::Deny) => "Deny",
        Err(_) => return Err(Unusable::Value { field: "action", value: policy.action }),
    };
    let rules: Vec<Value> = policy.groups.iter().map(group).collect::<Result<_, _>>()?;
    Ok(json!({"name": policy.name, "namespace": policy.namespace, "scope": scope, "action": action, "rules": rules}))
}

fn group(group: &security::Group) -> Result<Value, Unusable> {
    group.rules.iter().map(|rules| rules.matches.iter().map(matches).collect::<Result<Value, _>>()).collect()
}

fn matches(one: &security::Match) -> Result<Value, Unusable> {
    let security::Match {
        namespaces,
        not_namespaces,
        principals,
        not_principals,
        source_ips,
        not_source_ips,
        destination_ips,
        not_destination_ips,
        destination_ports,
        not_destination_ports,
    } = one;
    let texts = |all: &[security::StringMatch]| all.iter().map(text).collect::<Result<_, _>>();
    let prefixes = |all: &[security::Address]| all.iter().map(prefix).collect::<Result<_, _>>();
    let ports = |all: &[u32]| all.iter().copied().map(Value::from).collect();
    let lists: [(_, Vec<Value>); 10] = [
        ("namespaces", texts(namespaces)?),
        ("notNamespaces", texts(not_namespaces)?),
        ("principals", texts(principals)?),
        ("notPrincipals", texts(not_principals)?),
        ("sourceIps", prefixes(source_ips)?),
        ("notSourceIps", prefixes(not_source_ips)?),
        ("destinationIps", prefixes(destination_ips)?),
        ("notDestinationIps", prefixes(not_destination_ips)?),
        ("destinationPorts", ports(destination_ports)),
        ("notDestinationPorts", ports(not_destination_ports)),
    ];
    Ok(lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| (name, Value::from(list))).collect())
}

fn text(one: &security::StringMatch) -> Result<Value, Unusable> {
    Ok(match one.match_type.as_ref().ok_or(Unusable::Missing("a string match"))? {
        MatchType::Exact(text) => json!({"Exact": text}),
        MatchType::Prefix(text) => json!({"Prefix": text}),
        MatchType::Suffix(text) => json!({"Suffix": text}),
        MatchType::Presence(()) => json!("Presence"),
    })
}

fn prefix(one: &security::Address) -> Result<Value, Unusable> {
    let bytes = &*one.address;
    let ip = match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(v4), _) => IpAddr::from(v4),
        (_, Ok(v6)) => IpAddr::from(v6),
        _ => return Err(Unusable::Address(bytes.len())),
    };
    Ok(format!("{ip}/{}", one.length).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> security::Authorization {
        let exact = |text: &str| security::StringMatch { match_type: Some(MatchType::Exact(text.to_owned())) };
        let present = security::StringMatch { match_type: Some(MatchType::Presence(())) };
        let net = security::Address { address: vec![10, 0, 0, 0].into(), length: 8 };
        let clause = security::Match {
            principals: vec![exact("a/b")],
            not_principals: vec![present],
            source_ips: vec![net],
            destination_ports: vec![80],
            ..Default::default()
        };
        let rules = vec![security::Rules { matches: vec![clause] }];
        security::Authorization {
            name: "p".to_owned(),
            namespace: "shop".to_owned(),
            scope: 1,
            action: 1,
            groups: vec![security::Group { rules }],
        }
    }

    #[test]
    fn a_policy_reads_as_in_the_local_configuration() {
        let clause = json!({
            "principals": [{"Exact": "a/b"}], "notPrincipals": ["Presence"],
            "sourceIps": ["10.0.0.0/8"], "destinationPorts": [80],
        });
        let expected = json!({
            "name": "p", "namespace": "shop", "scope": "Namespace", "action": "Deny", "rules": [[[clause]]],
        });
        assert_eq!(convert("shop/p", &policy().encode_to_vec()), Ok(expected));
    }

    #[test]
    fn a_policy_that_cannot_be_used_says_why() {
        let refused = |change: &dyn Fn(&mut security::Authorization)| {
            let mut policy = policy();
            change(&mut policy);
            convert("shop/p", &policy.encode_to_vec()).expect_err("it was accepted").to_string()
        };
        assert_eq!(refused(&|p| p.name.clear()), "name is empty");
        assert_eq!(refused(&|p| p.namespace = "bank".to_owned()), "it says that it is \"bank/p\"");
        assert_eq!(refused(&|p| p.scope = 3), "scope has no value 3");
        assert_eq!(refused(&|p| p.action = 2), "action has no value 2");
        let first = |p: &mut security::Authorization| std::mem::take(&mut p.groups[0].rules[0].matches[0]);
        assert_eq!(
            refused(&|p| {
                let mut one = first(p);
                one.source_ips[0].address = vec![1].into();
                p.groups[0].rules[0].matches[0] = one;
            }),
            "an address has 1 bytes"
        );
    }
}
