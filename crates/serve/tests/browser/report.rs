//! The report, as a file.

use empg_report::episodes::{Vocabulary, of_rows};
use empg_report::html::{Contents, page};
use empg_report::run_data::RunData;

use crate::devtools::Page;
use crate::runs::{Training, rows};

pub(crate) fn opens_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let mut contents = Contents { title: "Two <b>runs</b>".to_owned(), ..Contents::default() };
    for (name, empg) in [("on", true), ("off", false)] {
        let mut training = Training::begin(folder.path(), name, 0, empg, 3);
        training.step(0.4, None);
        training.step(f64::NAN, None);
        training.step(0.6, Some(0.9));
        contents.runs.push(RunData::read(&training.path()).unwrap());
        contents.episodes.extend(of_rows(name, &rows(1, 3, 4, 6), &Vocabulary::default()));
    }
    let file = folder.path().join("report.html");
    std::fs::write(&file, page(&contents)).unwrap();
    let mut page = Page::open();
    for (width, dark) in [(1280, false), (1280, true), (400, false)] {
        page.shape(width, 900, dark);
        page.go(&format!("file://{}", file.display()));
        page.wait("document.querySelectorAll('.chart canvas').length >= 10");
        page.wait("document.querySelectorAll('.turn').length === 6");
        assert_eq!(page.eval("window.planted === undefined"), true);
        let wide = page.eval("document.documentElement.scrollWidth").as_u64().unwrap();
        assert!(wide <= u64::from(width), "{wide}");
        let nameless = page.nameless();
        assert!(nameless.is_empty(), "{nameless:#?}");
    }
    assert_eq!(page.eval("document.querySelectorAll('.row').length > 0 && document.querySelectorAll('.group button').length"), 4);
    let complaints = page.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert!(
        page.requests().iter().all(|url| url.starts_with("file:")
            || url.starts_with("data:")
            || url == "about:blank")
    );
}

/// What is drawn in a colour: how many pixels, in how many places side by side, and the share of the
/// widest hole between them.
const DRAWN: &str = r"async (bands, colour) => {
  const host = document.createElement('div');
  document.body.append(host);
  const arms = bands.map(([colour, x, mean], arm) => ({ arm, label: colour, colour, x, mean }));
  empgChart(host, 'drawn', arms, []);
  await new Promise(done => setTimeout(done, 50));
  const canvas = host.querySelector('canvas'), { width, height } = canvas;
  const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
  const columns = new Array(width).fill(0);
  for (let i = 0; i < data.length; i += 4) {
    const [r, g, b, a] = data.subarray(i, i + 4);
    const hit = colour === '#ff0000' ? r > 200 && g < 60 && b < 60 : b > 200 && g < 60 && r < 60;
    if (a > 120 && hit) columns[i / 4 % width]++;
  }
  host.remove();
  const there = columns.flatMap((n, x) => n ? [x] : []);
  const holes = there.slice(1).map((x, i) => x - there[i] - 1);
  return {
    pixels: columns.reduce((a, b) => a + b, 0),
    places: there.length && 1 + holes.filter(n => n > 1).length,
    hole: there.length ? Math.max(0, ...holes) / (there.at(-1) - there[0] + 1) : 0,
  };
}";

pub(crate) fn gaps_and_points() {
    let folder = tempfile::tempdir().unwrap();
    let mut training = Training::begin(folder.path(), "one", 0, true, 9);
    training.step(0.4, None);
    let runs = vec![RunData::read(&training.path()).unwrap()];
    let contents = Contents { title: "One step".to_owned(), runs, ..Contents::default() };
    let file = folder.path().join("report.html");
    std::fs::write(&file, page(&contents)).unwrap();
    let mut page = Page::open();
    page.shape(1280, 900, false);
    page.go(&format!("file://{}", file.display()));
    page.wait("document.querySelectorAll('.chart canvas').length >= 8");
    let mut drawn = |bands: &str, colour: &str| {
        let found = page.eval(&format!("({DRAWN})({bands}, {colour:?})"));
        let number = |key: &str| found[key].as_f64().unwrap();
        (number("pixels"), number("places"), number("hole"))
    };
    let (red, blue) = ("#ff0000", "#0000ff");
    // A value that is missing is a gap between its neighbours.
    let (_, places, hole) = drawn("[['#ff0000', [1, 2, 3, 4, 5], [1, 1, null, 2, 2]]]", red);
    assert!(places == 2.0 && (0.45..0.55).contains(&hole), "{places} {hole}");
    // Steps that only another curve has are none.
    let both = "[['#ff0000', [1, 3, 5], [1, 2, 1]], ['#0000ff', [2, 4, 5, 6], [5, null, 5, 6]]]";
    assert_eq!(drawn(both, red).1, 1.0);
    // A gap goes from value to value, whatever other curves have between them.
    let (_, places, hole) = drawn(both, blue);
    assert!(places == 2.0 && hole > 0.6, "{places} {hole}");
    // Values without neighbours are points: in a curve, and alone.
    let (pixels, places, _) = drawn("[['#ff0000', [1, 2, 3, 4, 5], [1, null, 1, null, 1]]]", red);
    assert!(pixels > 20.0 && places == 3.0, "{pixels} {places}");
    let (pixels, places, _) = drawn("[['#ff0000', [7], [0.5]]]", red);
    assert!(pixels > 8.0 && places == 1.0, "{pixels} {places}");
    assert!(page.complaints().is_empty());
}
