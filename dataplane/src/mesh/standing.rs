//! How the mesh state stands: where it is from, how old it is, how much it is.

use std::fmt;

use cache::Cache;
use serde::{Deserialize, Serialize};

use super::Source;

/// How the mesh state stands at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Who tells it: `file`, `istiod`, or nobody.
    pub source: String,
    /// A stream to the control plane is open, or the file says what is held; `None` where nobody tells.
    pub current: Option<bool>,
    /// A whole state has been applied.
    pub complete: bool,
    /// Seconds since the source last told or confirmed it; `None` before it has.
    pub age_seconds: Option<f64>,
    /// How many workloads are known.
    pub workloads: usize,
    /// How many services are known.
    pub services: usize,
    /// Why it is not current.
    pub error: Option<String>,
}

impl Source {
    /// Tells how the state that the source has brought stands now.
    pub fn standing(&self, cache: &Cache) -> Standing {
        let (state, mesh) = (cache.state(), cache.load());
        let (current, error) = match self {
            Self::File(status) => {
                let report = status.report();
                (Some(report.good), report.last_error.filter(|_| !report.good))
            }
            Self::Istiod(status) => (Some(status.is_connected()), status.last_error()),
            Self::None => (None, None),
        };
        Standing {
            source: state.source.to_owned(),
            current,
            complete: state.complete,
            age_seconds: state.age().map(|age| age.as_secs_f64()),
            workloads: mesh.workload_count(),
            services: mesh.service_count(),
            error,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, current, complete, age_seconds, workloads, services, error } = self;
        let source = if source.is_empty() { "no source" } else { source };
        write!(f, "{source}")?;
        match (current, source) {
            (Some(true), "file") => write!(f, ", good")?,
            (Some(false), "file") => write!(f, ", cannot be used")?,
            (Some(true), _) => write!(f, ", connected")?,
            (Some(false), _) => write!(f, ", not connected")?,
            (None, _) => {}
        }
        match age_seconds {
            Some(age) if *complete => write!(f, ", last confirmed {age:.1} s ago")?,
            _ => write!(f, ", nothing whole received yet")?,
        }
        write!(f, ", {workloads} workloads and {services} services")?;
        error.as_ref().map_or(Ok(()), |why| write!(f, " ({})", why.escape_debug()))
    }
}

#[cfg(test)]
mod tests {
    use super::Standing;

    #[test]
    fn it_reads_as_one_line() {
        let standing = Standing {
            source: "istiod".into(),
            current: Some(false),
            complete: true,
            age_seconds: Some(61.25),
            workloads: 3,
            services: 2,
            error: Some("the connection was lost: a\nb".into()),
        };
        let wanted = "istiod, not connected, last confirmed 61.2 s ago, 3 workloads and 2 services (the connection was lost: a\\nb)";
        assert_eq!(standing.to_string(), wanted);
        let wanted = "file, good, last confirmed 0.0 s ago, 0 workloads and 0 services";
        let file = Standing {
            source: "file".into(),
            current: Some(true),
            complete: true,
            age_seconds: Some(0.0),
            ..Standing::default()
        };
        assert_eq!(file.to_string(), wanted);
        assert_eq!(
            Standing::default().to_string(),
            "no source, nothing whole received yet, 0 workloads and 0 services"
        );
    }
}
