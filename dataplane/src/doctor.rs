//! `meshd doctor`: what this kernel and these rights allow, what is missing, and what that costs; and how the mesh state of the
//! daemon that runs stands.

use std::{
    fmt::Write as _,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context as _;

use crate::{
    ask,
    cli::Doctor,
    kernel::{Check, probe},
    mesh::{self, Standing},
};

/// Prints the table; fails where something required is missing.
pub fn run(flags: &Doctor) -> ExitCode {
    let checks = probe(flags.cgroup.as_deref(), &flags.proc);
    let daemon = standing(flags).map_or_else(|error| format!("{error:#}"), |standing| standing.to_string());
    // Who closed our output still gets the exit code.
    let _ = io::stdout().write_all(format!("{}mesh state: {daemon}\n", table(&checks)).as_bytes());
    if checks.iter().all(|check| check.ok || !check.required) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Asks the daemon that runs.
fn standing(flags: &Doctor) -> anyhow::Result<Standing> {
    let answer = ask::get(flags.admin_address, mesh::PATH)?;
    serde_json::from_reader(answer).with_context(|| format!("what answers at {} cannot be read", flags.admin_address))
}

/// One line a check; under one that failed, what that costs and what to do.
fn table(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let Check { name, ok, required, found, costs, remedy } = check;
        let state = match (ok, required) {
            (true, _) => "ok",
            (false, true) => "MISSING",
            (false, false) => "limited",
        };
        let _ = writeln!(text, "{state:<8} {name:<width$}  {found}");
        if !ok {
            let _ = writeln!(text, "{:<8} {:<width$}  costs:  {costs}", "", "");
            let _ = writeln!(text, "{:<8} {:<width$}  remedy: {remedy}", "", "");
        }
    }
    let missing = checks.iter().filter(|check| !check.ok && check.required).count();
    let verdict = match missing {
        0 => "meshd run can do its work here.".to_owned(),
        1 => "meshd run needs what is MISSING.".to_owned(),
        n => format!("meshd run needs the {n} that are MISSING."),
    };
    text + "\n" + &verdict + "\n"
}

#[cfg(test)]
mod tests {
    use super::table;
    use crate::kernel::Check;

    fn check(name: &'static str, ok: bool, required: bool) -> Check {
        Check { name, ok, required, found: "as found".into(), costs: "a lot", remedy: "a newer one" }
    }

    #[test]
    fn what_is_missing_comes_with_costs_and_remedy() {
        let text = table(&[check("cgroup v2", false, true), check("kernel", false, false), check("maps", true, true)]);
        let wanted = "\
MISSING  cgroup v2  as found
                    costs:  a lot
                    remedy: a newer one
limited  kernel     as found
                    costs:  a lot
                    remedy: a newer one
ok       maps       as found

meshd run needs what is MISSING.
";
        assert_eq!(text, wanted);
    }
}
