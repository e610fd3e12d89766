//! Where this node is, as routing preferences count it.

use cache::{Change, Service, Snapshot, Str, Workload, model::Locality};

/// Where this node is.
#[derive(Clone, Debug, Default)]
pub(super) struct Site {
    /// Its network; empty is the default one.
    pub(super) network: Str,
    /// Its name.
    pub(super) node: Str,
    /// Its cluster, and that of workloads that do not name theirs.
    pub(super) cluster: Str,
    /// That of its workloads; empty as long as none of them tells.
    pub(super) locality: Locality,
}

impl Site {
    /// Learns the node's locality from its own workloads; tells whether it is another than before. Who leaves takes it along with the
    /// next one who tells another.
    pub(super) fn follow(&mut self, mesh: &Snapshot, change: &Change) -> bool {
        let told = |w: &Workload| w.extra.as_ref().filter(|_| w.node == self.node).map(|e| e.locality.clone());
        let known = |locality: &Locality| *locality != Locality::default();
        let found = if change.full {
            // Of several the smallest, so that the order of workloads does not matter.
            let order = |l: &Locality| [l.region.clone(), l.zone.clone(), l.subzone.clone()];
            mesh.workloads_here().filter_map(|w| told(w)).filter(known).min_by_key(order)
        } else {
            let changed = change.workloads.iter().filter_map(|uid| told(mesh.workload(uid)?));
            changed.filter(known).find(|locality| *locality != self.locality)
        };
        let Some(found) = found.filter(|found| *found != self.locality) else { return false };
        self.locality = found;
        true
    }

    /// Tells whether what is in a network can be reached: it is the node's own or the empty one.
    pub(super) fn is_near(&self, network: &str) -> bool {
        network.is_empty() || network == self.network.as_str()
    }

    /// Counts how many of a service's scopes, from the first on, a workload shares with this node.
    pub(super) fn rank(&self, scopes: &[Str], workload: &Workload) -> usize {
        scopes.iter().take_while(|scope| self.shares(scope, workload)).count()
    }

    fn shares(&self, scope: &str, workload: &Workload) -> bool {
        let (unknown, here) = (Locality::default(), &self.locality);
        let there = workload.extra.as_ref().map_or(&unknown, |extra| &extra.locality);
        match scope {
            "NETWORK" => self.is_near(&workload.network),
            "REGION" => here.region == there.region,
            "ZONE" => here.zone == there.zone,
            "SUBZONE" => here.subzone == there.subzone,
            "NODE" => self.node == workload.node,
            "CLUSTER" => workload.cluster_id.is_empty() || self.cluster == workload.cluster_id,
            _ => false,
        }
    }
}

/// Returns how a service spreads connections; `STANDARD` where it does not say.
pub(super) fn mode(service: &Service) -> &str {
    let mode = service.load_balancing.as_ref().map_or("", |lb| lb.mode.as_str());
    if mode.is_empty() { "STANDARD" } else { mode }
}
