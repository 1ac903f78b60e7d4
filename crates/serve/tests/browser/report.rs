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
