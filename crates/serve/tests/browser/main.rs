//! The dashboard and the report in a headless Chromium. Without one every test here shows as ignored;
//! `EMPG_CHROMIUM` names one that is not on the path.

mod dashboard;
mod devtools;
mod large;
mod report;
#[path = "../it/runs.rs"]
mod runs;
mod server;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let here = devtools::find().is_some();
    if !here {
        eprintln!(
            "no Chromium was found: the tests in a browser are ignored (EMPG_CHROMIUM names one)"
        );
    }
    let trial = |name: &'static str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
        .with_ignored_flag(!here)
    };
    let tests = vec![
        trial("runs_are_listed_and_followed", dashboard::runs_are_listed_and_followed),
        trial("another_server_at_the_same_port", dashboard::another_server_at_the_same_port),
        trial(
            "what_happens_while_the_list_is_loading",
            dashboard::what_happens_while_the_list_is_loading,
        ),
        trial("runs_are_compared", dashboard::runs_are_compared),
        trial("credit_by_keyboard", dashboard::credit_by_keyboard),
        trial("everything_has_a_name_and_enough_contrast", dashboard::names_and_contrast),
        trial("narrow_pages_do_not_scroll_sideways", dashboard::narrow),
        trial("ten_thousand_trajectories", large::ten_thousand_trajectories),
        trial("a_thousand_steps", large::a_thousand_steps),
        trial("the_report_opens_quietly", report::opens_quietly),
        trial("missing_values_are_gaps_and_lone_ones_points", report::gaps_and_points),
    ];
    let mut arguments = Arguments::from_args();
    // A browser is several processes already.
    arguments.test_threads.get_or_insert(1);
    libtest_mimic::run(&arguments, tests).exit();
}
