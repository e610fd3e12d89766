//! Slots of two endpoints each, of which a random one chooses every endpoint as often as its weight says.

use std::net::SocketAddr;

use abi::{Endpoint, steering::EndpointValue};

/// Makes the slots of a set, as many as there are endpoints, by Vose's alias method: a slot lacks what its endpoint's weight is below the
/// mean, and one that is above it fills that. An endpoint of weight 0 takes nothing and has no slot.
pub(super) fn slots(set: u32, endpoints: &[(SocketAddr, u32)]) -> Vec<EndpointValue> {
    let endpoints: Vec<_> = endpoints.iter().filter(|(_, weight)| *weight > 0).collect();
    let total: u128 = endpoints.iter().map(|(_, weight)| u128::from(*weight)).sum();
    // In units of which a slot holds `total`.
    let mut left: Vec<u128> =
        endpoints.iter().map(|(_, weight)| u128::from(*weight) * endpoints.len() as u128).collect();
    let mut slots: Vec<_> = endpoints.iter().map(|(address, _)| slot(set, *address, *address, u32::MAX)).collect();
    let (mut small, mut large): (Vec<_>, Vec<_>) = (0..endpoints.len()).partition(|at| left[*at] < total);
    while let (Some(&with), Some(at)) = (large.last(), small.pop()) {
        slots[at] = slot(set, endpoints[at].0, endpoints[with].0, threshold(left[at], total));
        left[with] -= total - left[at];
        if left[with] < total {
            large.pop();
            small.push(with);
        }
    }
    slots
}

/// The first endpoint has `part` of `total`: a random number of 32 bits is at most the threshold so often.
fn threshold(part: u128, total: u128) -> u32 {
    u32::try_from(((part << 32) / total).saturating_sub(1)).unwrap_or(u32::MAX)
}

fn slot(set: u32, first: SocketAddr, second: SocketAddr, threshold: u32) -> EndpointValue {
    let [first, second] = [first, second].map(Endpoint::from);
    EndpointValue { set, threshold, addresses: [first.address, second.address], ports: [first.port, second.port] }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Sums up what each endpoint takes of all slots, in slots.
    fn shares(weights: &[u32]) -> BTreeMap<u16, f64> {
        let endpoints: Vec<_> = (1..).zip(weights).map(|(n, weight)| (([10, 0, 0, 1], n).into(), *weight)).collect();
        let mut shares = BTreeMap::new();
        for slot in slots(7, &endpoints) {
            assert_eq!(slot.set, 7);
            let first = (f64::from(slot.threshold) + 1.0) / 2f64.powi(32);
            for (port, share) in slot.ports.into_iter().zip([first, 1.0 - first]) {
                *shares.entry(u16::from_be_bytes(port)).or_default() += share;
            }
        }
        shares
    }

    #[test]
    fn each_endpoint_has_the_share_of_its_weight() {
        for weights in [&[1, 1, 1][..], &[1, 2, 3, 4], &[100, 1], &[u32::MAX, 1, 5], &[7], &[3, 0, 9], &[1; 300]] {
            let shares = shares(weights);
            let (total, count) = (weights.iter().map(|w| f64::from(*w)).sum::<f64>(), shares.len() as f64);
            for (port, weight) in (1..).zip(weights) {
                let share = shares.get(&port).copied().unwrap_or_default() / count;
                let wanted = f64::from(*weight) / total;
                assert!((share - wanted).abs() < 1e-8, "{weights:?}: {port} has {share}, not {wanted}");
            }
        }
    }

    #[test]
    fn nothing_that_takes_anything_is_no_slot() {
        assert!(slots(1, &[]).is_empty() && slots(1, &[(([10, 0, 0, 1], 80).into(), 0)]).is_empty());
    }
}
