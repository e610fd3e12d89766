//! As many connections as the machine can dial, for a minute: each is counted, at both ends, and nothing is lost.

use anyhow::{Context as _, Result, ensure};

use super::{
    load::{MESSAGE, Order},
    world::{Dial, Mode, PORTS, World},
};
use crate::figure::{Figures, Target};

/// Clients that dial at the same time, on whichever processor is free.
const CLIENTS: usize = 8;

/// Dials for as long, and compares what was dialled with what is counted.
pub fn run(world: &World, millis: u64, figures: &mut Figures) -> Result<()> {
    let meshd = world.meshd(Mode::On, &[])?.context("a meshd in that mode")?;
    let (_server, mut client) = (world.server(PORTS)?, world.client()?);
    let done =
        client.ask(&Order::Short { targets: world.targets(Dial::Vip), clients: CLIENTS, millis, bytes: MESSAGE })?;
    let made = done.count as f64;
    let bytes = made * MESSAGE as f64;
    let all = ["opened", "closed"].map(|what| format!("kmesh_tcp_connections_{what}_total"));
    // What is not there by then is reported as missing.
    let scrape = meshd.eventually(|scrape| {
        let told = scrape.total("meshd_telemetry_kernel_connections_total", &[("event", "closed")]);
        ensure!(told >= 2.0 * made, "{told} of {made} connections ended, at both ends together");
        Ok(())
    })?;
    let settled = meshd.eventually(|scrape| {
        for reporter in ["source", "destination"] {
            all.iter().try_for_each(|name| scrape.shows(name, &[("reporter", reporter)], made))?;
        }
        Ok(())
    });
    let scrape = settled.unwrap_or(scrape);
    let uncounted: f64 = ["source", "destination"]
        .into_iter()
        .flat_map(|reporter| all.iter().map(move |name| (name, reporter)))
        .map(|(name, reporter)| (made - scrape.total(name, &[("reporter", reporter)])).abs())
        .sum();
    let wrong: f64 = ["sent", "received"]
        .map(|what| (2.0 * bytes - scrape.total(&format!("kmesh_tcp_{what}_bytes_total"), &[])).abs())
        .iter()
        .sum();
    let lost = scrape.total("meshd_telemetry_lost_records_total", &[("kind", "closed_or_failed")]);
    let aside = scrape.total("meshd_telemetry_aside_total", &[]);
    let note = format!(
        "{made} in {:.0} s, {:.0} a second, each at both ends; {wrong} bytes too few or too many; {aside} ends found the rings full",
        done.seconds,
        made / done.seconds
    );
    figures.add("connections dialled as fast as it goes, not counted", Target::AtMost(0.0), uncounted, "", note);
    figures.add("the same, lost", Target::AtMost(0.0), lost, "", "");
    ensure!(wrong == 0.0, "{wrong} bytes too few or too many");
    Ok(())
}
