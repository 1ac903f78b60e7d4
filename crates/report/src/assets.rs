//! What pages are made of: the report embeds it, the dashboard serves it.

/// The style of every page.
pub const STYLE: &str =
    concat!(include_str!("../assets/style.css"), include_str!("../assets/viewer.css"));
/// The charting library's style.
pub const CHART_STYLE: &str = include_str!("../assets/vendor/uPlot.min.css");
/// The charting library, uPlot.
pub const CHART_LIBRARY: &str = include_str!("../assets/vendor/uPlot.iife.min.js");
/// Curves of arms and runs.
pub const CHARTS: &str = include_str!("../assets/charts.js");
/// The credit viewer.
pub const VIEWER: &str = include_str!("../assets/viewer.js");
/// What starts the report's charts and its viewer.
pub const MAIN: &str = include_str!("../assets/main.js");
/// The dashboard's page.
pub const DASHBOARD_PAGE: &str = include_str!("../assets/dashboard/page.html");
/// The dashboard's style, besides that of every page.
pub const DASHBOARD_STYLE: &str = include_str!("../assets/dashboard/dashboard.css");
/// The dashboard's scripts: names and texts.
pub const DASHBOARD_MODULES: [(&str, &str); 7] = [
    ("dashboard.js", include_str!("../assets/dashboard/dashboard.js")),
    ("dom.js", include_str!("../assets/dashboard/dom.js")),
    ("live.js", include_str!("../assets/dashboard/live.js")),
    ("list.js", include_str!("../assets/dashboard/list.js")),
    ("compare.js", include_str!("../assets/dashboard/compare.js")),
    ("run.js", include_str!("../assets/dashboard/run.js")),
    ("tasks.js", include_str!("../assets/dashboard/tasks.js")),
];
