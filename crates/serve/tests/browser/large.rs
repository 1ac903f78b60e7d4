//! Many trajectories, and long ones.

use std::time::Instant;

use serde_json::json;

use crate::devtools::Page;
use crate::runs::{Training, rows};
use crate::server::Served;

/// 10,000 episodes of ten turns scroll while the page holds the rows in sight only. Times are
/// printed (`--nocapture`), not judged.
pub(crate) fn ten_thousand_trajectories() {
    let folder = tempfile::tempdir().unwrap();
    let mut training = Training::begin(folder.path(), "large", 0, true, 2);
    training.record(rows(1, 625, 8, 10));
    training.step(0.5, None);
    training.record(rows(2, 625, 8, 10));
    training.step(0.6, None);
    drop(training);
    let served = Served::start(folder.path());
    let mut page = Page::open();
    page.shape(1280, 900, false);
    page.go(&served.url);
    page.wait("document.querySelectorAll('.runs tbody tr').length === 1");
    let begun = Instant::now();
    page.eval("location.hash = '#/run/large/credit/all'");
    page.wait("document.querySelectorAll('.turn').length === 10");
    eprintln!("10,000 trajectories on show after {:.2} s", begun.elapsed().as_secs_f64());
    let count = "document.querySelector('.controls [role=status]:last-child').textContent";
    assert_eq!(page.eval(count), "10,000 of 10,000 episodes");

    let result = page.eval(
        "(async () => {
          const list = document.querySelector('.list'), times = [];
          let most = 0, empty = 0, last = performance.now();
          const frame = () => new Promise(requestAnimationFrame);
          const height = list.scrollHeight;
          for (let i = 0; i < 240; i++) {
            list.scrollTop = (height - list.clientHeight) * i / 239;
            await frame();
            await frame();
            const now = performance.now();
            times.push((now - last) / 2);
            last = now;
            const seen = [...list.querySelectorAll('.row')].filter(r => !r.hidden);
            most = Math.max(most, seen.length);
            const box = list.getBoundingClientRect();
            const covered = seen.filter(r => { const b = r.getBoundingClientRect(); return b.bottom > box.top + 1 && b.top < box.bottom - 1; }).length;
            if (covered * 48 < box.height - 96) empty++;
          }
          times.sort((a, b) => a - b);
          return { most, empty, nodes: document.querySelectorAll('*').length, height,
            median: times[120], p95: times[228], worst: times[239],
            last: [...list.querySelectorAll('.row')].some(r => !r.hidden && r.ariaPosInSet === '10000') };
        })()",
    );
    eprintln!("scrolling through 10,000 rows: {result}");
    assert!(result["most"].as_u64().unwrap() < 100, "{result}");
    assert!(result["nodes"].as_u64().unwrap() < 1500, "{result}");
    assert_eq!(result["empty"], 0, "rows are there when they are scrolled to: {result}");
    assert_eq!(result["last"], true, "{result}");
    assert_eq!(result["height"], 480_000);

    let timed = page.eval(
        "(async () => {
          const order = document.querySelector('[aria-label=order]');
          const begun = performance.now();
          order.value = 'errors';
          order.dispatchEvent(new Event('change'));
          return performance.now() - begun;
        })()",
    );
    eprintln!("sorting them: {timed} ms");
    let begun = Instant::now();
    page.eval(
        "{ const s = document.querySelector('[aria-label=\"search text\"]'); s.value = 'mug 17 from drawer 9'; \
         s.dispatchEvent(new Event('input')); }",
    );
    page.wait(&format!("{count} === '16 of 10,000 episodes'"));
    eprintln!(
        "searching them, with the pause after typing: {:.2} s",
        begun.elapsed().as_secs_f64()
    );
    assert_eq!(json!(page.complaints()), json!([]));
}

/// An episode of a thousand steps is there at once and whole soon after.
pub(crate) fn a_thousand_steps() {
    let folder = tempfile::tempdir().unwrap();
    let mut training = Training::begin(folder.path(), "long", 0, true, 1);
    training.record(rows(1, 1, 2, 1000));
    training.step(0.5, None);
    drop(training);
    let served = Served::start(folder.path());
    let mut page = Page::open();
    page.shape(1280, 900, false);
    page.go(&format!("{}/#/run/long/credit", served.url));
    page.wait("document.querySelectorAll('.turn').length > 0");
    let timed = page.eval(
        "(async () => {
          const list = document.querySelector('.list');
          const begun = performance.now();
          list.focus();
          list.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowDown' }));
          while (!document.querySelector('.episode').textContent.includes('lost') && !location.hash.endsWith('0.1')) await new Promise(requestAnimationFrame);
          while (document.querySelector('.episode').getAttribute('aria-busy')) await new Promise(requestAnimationFrame);
          await new Promise(requestAnimationFrame);
          return performance.now() - begun;
        })()",
    );
    eprintln!("a thousand steps: the first are on show after {timed} ms");
    page.wait("document.querySelectorAll('.turn').length === 1000");
    // A click on the strip shows the step.
    page.eval(
        "{ const s = document.querySelector('.strip.own'), b = s.getBoundingClientRect(); \
         s.dispatchEvent(new MouseEvent('click', { clientX: b.left + b.width * 0.5001, bubbles: true })); }",
    );
    page.wait("document.activeElement.classList.contains('step')");
    let at = page.eval("document.activeElement.parentElement.getAttribute('aria-label')");
    assert_eq!(at, "step 501");
    page.wait("(b => b.top >= 0 && b.bottom <= innerHeight)(document.activeElement.getBoundingClientRect())");
    assert_eq!(json!(page.complaints()), json!([]));
}
