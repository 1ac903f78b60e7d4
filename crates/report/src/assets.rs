//! What pages are made of: the report embeds it, the dashboard serves it.

/// The style of every page.
pub const STYLE: &str = include_str!("../assets/style.css");
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
