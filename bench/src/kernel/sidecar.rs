//! `meshd` against a relay in each pod, through which iptables lead every connection, as the sidecars of a mesh have it.

use anyhow::{Context as _, Result};
use tests::netns::Namespace;

use super::{
    load::Order,
    redirect::{self, KIB, MESSAGES, Way},
    relay::MARK,
    samples::Samples,
    worker::Worker,
    world::{Dial, Mode, PORTS, World},
};
use crate::{
    figure::{Figures, Target},
    machine,
};

/// Who carries a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Carrier {
    /// `meshd`, by TCP or redirected; no sidecar.
    Meshd(Way),
    /// A sidecar in each pod; no `meshd`.
    Sidecars,
}

const REQUEST: &str = "connect, 1 KiB, 1 KiB back, close, a core each, us";
const DATA: &str = "1 KiB and back on an open connection, a core each, us";

/// Where the relays listen: for what leaves a pod, and for what comes to it.
const OUTBOUND: u16 = 15_001;
const INBOUND: u16 = 15_006;

/// Measures whole requests and round trips with `meshd` in these ways and with sidecars, and returns a table of medians.
pub fn run(world: &World, ways: &[Way], plan: redirect::Plan, figures: &mut Figures) -> Result<String> {
    let mut samples = Samples::default();
    let ways = ways.iter().filter(|way| **way != Way::Floor);
    let carriers: Vec<_> = ways.map(|way| Carrier::Meshd(*way)).chain([Carrier::Sidecars]).collect();
    let (mut server, mut client) = (world.server(PORTS)?, world.client()?);
    let mut relays = world.workers()?;
    for (relay, (port, processor)) in relays.iter_mut().zip([(OUTBOUND, 0), (INBOUND, machine::processors() - 1)]) {
        relay.ask(&Order::Relay { port })?;
        // A sidecar has the processor of its pod.
        relay.ask(&Order::Pin { processor })?;
    }
    client.ask(&Order::Pin { processor: 0 })?;
    server.ask(&Order::Pin { processor: machine::processors() - 1 })?;
    for round in 0..=plan.rounds {
        for turn in 0..carriers.len() {
            let carrier = carriers[(round + turn) % carriers.len()];
            let measured = measure(world, carrier, plan, &mut client);
            let measured = measured.with_context(|| format!("round {round}, {carrier:?}"))?;
            // The first round warms up.
            if round > 0 {
                measured.into_iter().for_each(|(what, value)| samples.push(what, carrier, value));
            }
        }
    }
    let on = Carrier::Meshd(Way::On);
    for (what, most) in [(REQUEST, 0.69), (DATA, 0.24)] {
        let name = "meshd --accelerate / sidecars";
        samples.compare(figures, what, (on, Carrier::Sidecars), name, Target::AtMost(most));
        samples.compare(figures, what, (Carrier::Meshd(Way::Off), Carrier::Sidecars), "meshd / sidecars", Target::None);
    }
    let modes = [(Carrier::Meshd(Way::Off), "meshd"), (on, "meshd --accelerate"), (Carrier::Sidecars, "sidecars")];
    Ok(samples.table(&modes))
}

fn measure(
    world: &World,
    carrier: Carrier,
    plan: redirect::Plan,
    client: &mut Worker,
) -> Result<[(&'static str, f64); 2]> {
    let mode = match carrier {
        Carrier::Meshd(Way::On) => Mode::Accelerated,
        Carrier::Meshd(_) => Mode::On,
        Carrier::Sidecars => Mode::Off,
    };
    let meshd = world.meshd(mode, &[])?;
    let _rules = (carrier == Carrier::Sidecars).then(|| Rules::set(world.pods())).transpose()?;
    let targets = world.targets(Dial::Pod);
    client.ask(&Order::Begin { target: targets[0], messages: MESSAGES })?;
    if let (Mode::Accelerated, Some(meshd)) = (mode, &meshd) {
        redirect::wait_until_joined(meshd)?;
    }
    let trips = client.ask(&Order::Trips { bytes: KIB, count: plan.trips })?;
    client.ask(&Order::Release)?;
    let short = client.ask(&Order::Short { targets, clients: 1, millis: plan.millis, bytes: KIB })?;
    Ok([(REQUEST, short.seconds * 1e6 / short.count as f64), (DATA, trips.seconds * 1e6 / trips.count as f64)])
}

/// What leads connections to the relays, while it lives.
struct Rules<'a>(Vec<(&'a Namespace, String)>);

impl<'a> Rules<'a> {
    fn set([client, server]: [&'a Namespace; 2]) -> Result<Self> {
        let mut rules = Self(Vec::new());
        for (namespace, rule) in [
            (client, format!("OUTPUT -p tcp -m mark ! --mark {MARK} -j REDIRECT --to-ports {OUTBOUND}")),
            (server, format!("PREROUTING -p tcp -j REDIRECT --to-ports {INBOUND}")),
        ] {
            namespace.run(&format!("iptables -w -t nat -A {rule}"))?;
            rules.0.push((namespace, rule));
        }
        Ok(rules)
    }
}

impl Drop for Rules<'_> {
    fn drop(&mut self) {
        for (namespace, rule) in &self.0 {
            if let Err(error) = namespace.run(&format!("iptables -w -t nat -D {rule}")) {
                eprintln!("what follows is led through the relays, too: {error:#}");
            }
        }
    }
}
