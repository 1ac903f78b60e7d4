//! The dashboard's views.

use std::path::Path;

use serde_json::json;

use crate::devtools::Page;
use crate::runs::{Training, rows};
use crate::server::Served;

/// Text of what a selector finds.
fn text(page: &mut Page, selector: &str) -> String {
    let script = format!("document.querySelector({selector:?})?.textContent ?? ''");
    page.eval(&script).as_str().unwrap().to_owned()
}

/// Two arms of two seeds, the last of which has recorded steps.
fn runs(folder: &Path) {
    for (name, seed, empg) in
        [("off-0", 0, false), ("off-1", 1, false), ("on-0", 0, true), ("on-1", 1, true)]
    {
        let mut training = Training::begin(folder, name, seed, empg, 4);
        for step in 1..=4 {
            if step % 2 == 0 {
                training.record(rows(step, 3, 4, 6));
            }
            let success = 0.3 + 0.1 * step as f64 + 0.05 * seed as f64;
            training.step(success, (step == 4).then_some(0.8 + 0.05 * seed as f64));
        }
    }
}

/// Nothing went wrong, and nobody else was asked.
fn quiet(page: &mut Page, served: &Served) {
    let complaints = page.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
    for url in page.requests() {
        let own = url.starts_with(&served.url) || url.starts_with("data:") || url == "about:blank";
        assert!(own, "{url} was asked for");
    }
}

pub(crate) fn runs_are_listed_and_followed() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let mut page = Page::open();
    page.go(&served.url);
    page.wait(
        "document.querySelector('.nothing')?.textContent.includes('no run here yet') === true",
    );
    page.wait("document.getElementById('line').textContent === 'live'");

    runs(folder.path());
    page.wait("document.querySelectorAll('.runs tbody tr').length === 4");
    page.wait("document.querySelectorAll('.state.finished').length === 4");
    let mut training = Training::begin(folder.path(), "live", 7, true, 9);
    training.step(0.25, None);
    page.wait("document.querySelectorAll('.runs tbody tr').length === 5");
    let row = "[...document.querySelectorAll('.runs tbody tr')].find(r => r.querySelector('a').textContent === 'live')";
    page.wait(&format!("{row}.textContent.includes('1 / 9')"));
    page.wait(&format!("{row}.querySelector('.state').textContent.includes('running')"));
    page.wait("document.getElementById('said').textContent.includes('new run: live')");

    // The focus stays while rows change under it.
    page.eval(&format!("{row}.querySelector('a').focus()"));
    training.step(0.75, None);
    page.wait(&format!("{row}.textContent.includes('2 / 9')"));
    assert_eq!(page.eval("document.activeElement.textContent"), "live");
    let points = page.eval(&format!("{row}.querySelector('.spark path').getAttribute('d')"));
    assert!(points.as_str().unwrap().contains('L'), "two points are a line: {points}");

    // The run's own page grows with it.
    page.go(&format!("{}/#/run/live", served.url));
    page.wait("document.querySelectorAll('.chart canvas').length >= 10");
    page.wait("document.querySelector('.facts').textContent.includes('step 2 of 9')");
    training.record(rows(3, 2, 2, 4));
    training.step(0.8, None);
    page.wait("document.querySelector('.facts').textContent.includes('step 3 of 9')");
    drop(training);
    page.wait("document.querySelector('.facts .state').textContent.includes('stopped')");

    // Filters and order.
    page.go(&format!("{}/#/", served.url));
    page.wait("document.querySelectorAll('.runs tbody tr').length === 5");
    page.eval(
        "{ const s = document.querySelector('.controls input'); s.value = 'empg seed 1'; \
         s.dispatchEvent(new Event('input')); }",
    );
    page.wait("document.querySelectorAll('.runs tbody tr').length === 1");
    assert_eq!(text(&mut page, ".runs tbody a"), "on-1");
    quiet(&mut page, &served);
}

pub(crate) fn another_server_at_the_same_port() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Training::begin(one.path(), "old", 0, true, 3).step(0.25, None);
    Training::begin(other.path(), "new", 0, true, 3).step(0.75, None);
    let served = Served::start(one.path());
    let port = served.url.rsplit_once(':').unwrap().1.parse().unwrap();
    let mut page = Page::open();
    page.go(&served.url);
    let shows = |name: &str| {
        format!(
            "[...document.querySelectorAll('.runs tbody tr a')].map(a => a.textContent).join() === {name:?}"
        )
    };
    page.wait(&shows("old"));
    page.wait("document.getElementById('line').textContent === 'live'");
    drop(served);
    page.wait("document.getElementById('line').textContent !== 'live'");
    // As many changes as the first has told.
    let _served = Served::at(other.path(), port);
    page.wait("document.getElementById('line').textContent === 'live'");
    page.wait(&shows("new"));
}

pub(crate) fn what_happens_while_the_list_is_loading() {
    let folder = tempfile::tempdir().unwrap();
    let mut training = Training::begin(folder.path(), "live", 0, true, 9);
    let served = Served::start(folder.path());
    let mut page = Page::open();
    // A list that is on its way for long.
    page.call(
        "Page.addScriptToEvaluateOnNewDocument",
        &json!({ "source": "{ const real = fetch; window.listed = 0;
            window.fetch = async (...of) => {
              const answer = await real(...of);
              if (of[0] === '/api/runs' || of[0].startsWith('/api/runs?')) {
                listed++;
                await new Promise(done => { window.arrive = done; setTimeout(done, 3000); });
              }
              return answer;
            }; }" }),
    );
    page.go(&served.url);
    page.wait("window.listed > 0 && document.getElementById('line').textContent === 'live'");
    training.step(0.25, None);
    page.wait("document.querySelector('.runs tbody tr')?.textContent.includes('1 / 9') === true");
    // For good: no older list comes behind it.
    std::thread::sleep(std::time::Duration::from_secs(4));
    let row = text(&mut page, ".runs tbody tr");
    assert!(row.contains("1 / 9"), "{row}");
    quiet(&mut page, &served);
}

pub(crate) fn runs_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    runs(folder.path());
    let served = Served::start(folder.path());
    let mut page = Page::open();
    page.shape(1280, 900, false);
    page.go(&served.url);
    page.wait("document.querySelectorAll('.runs tbody tr').length === 4");
    page.eval("document.querySelectorAll('.box input').forEach(b => b.click())");
    assert_eq!(text(&mut page, ".controls .primary"), "Compare 4 runs");
    page.eval("document.querySelector('.controls .primary').click()");
    page.wait("document.querySelectorAll('.chart canvas').length >= 10");
    assert_eq!(page.eval("document.activeElement.tagName"), "H1", "reading goes on at the heading");
    assert_eq!(page.eval("document.querySelectorAll('.arms li').length"), 2);
    // Something is drawn on every chart.
    let blank = page.eval(
        "[...document.querySelectorAll('.chart canvas')].filter(c => \
         !c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v)).length",
    );
    assert_eq!(blank, 0);
    let main = page.eval("document.querySelector('main').innerText");
    let main = main.as_str().unwrap();
    for part in
        ["Success by task type", "Paired differences", "Where the arms differ", "empg.enabled"]
    {
        assert!(main.contains(part), "{part} in {main}");
    }
    // An address can be shared.
    let address = page.eval("location.hash");
    assert_eq!(address.as_str().unwrap().matches('/').count(), 5, "{address}");
    page.go("about:blank");
    page.go(&format!("{}/{}", served.url, address.as_str().unwrap()));
    page.wait("document.querySelectorAll('.chart canvas').length >= 10");
    page.go(&format!("{}/#/run/on-0/tasks", served.url));
    page.wait("document.querySelectorAll('meter').length === 6");
    page.eval("document.querySelector('.training summary').click()");
    page.wait("document.querySelectorAll('.training tbody tr').length === 6");
    page.go(&format!("{}/#/run/on-0/settings", served.url));
    page.wait("document.body.innerText.includes('empg.zeta')");
    page.go(&format!("{}/#/run/none", served.url));
    page.wait("document.body.innerText.includes('not in the folder')");
    let complaints = page.complaints();
    // A run that is not there is refused, which the browser notes.
    assert!(complaints.iter().all(|c| c.contains("404")), "{complaints:#?}");
}

pub(crate) fn credit_by_keyboard() {
    let folder = tempfile::tempdir().unwrap();
    runs(folder.path());
    let served = Served::start(folder.path());
    let mut page = Page::open();
    page.shape(1280, 900, false);
    page.go(&format!("{}/#/run/on-0/credit", served.url));
    page.wait("document.querySelectorAll('.turn').length === 6");
    assert_eq!(page.eval("document.querySelector('select').value"), "4", "the newest step");
    let count = "document.querySelector('.controls [role=status]:last-child').textContent";
    assert_eq!(page.eval(count), "12 of 12 episodes");

    page.eval("document.querySelector('.list').focus()");
    page.press("ArrowDown");
    page.wait("location.hash.endsWith('/4/0.1')");
    page.press("End");
    page.wait("location.hash.endsWith('/4/2.3')");
    let active = page.eval("document.getElementById(document.querySelector('.list').getAttribute('aria-activedescendant')).ariaPosInSet");
    assert_eq!(active, "12");
    page.press("Home");
    page.wait("location.hash.endsWith('/4/0.0')");
    page.wait("document.querySelector('.episode').textContent.includes('households/train/0')");

    // The planted script is text, and only text.
    let shown = page
        .eval("document.querySelector('.turns').textContent.includes('<script>window.planted')");
    assert_eq!(shown, true);
    assert_eq!(
        page.eval(
            "window.planted === undefined && !document.querySelector('.turns img, .turns script')"
        ),
        true
    );

    page.press("Enter");
    page.wait("document.activeElement.classList.contains('step')");
    page.press("ArrowDown");
    page.press("Enter");
    page.wait("document.querySelectorAll('.waterfall svg rect').length === 5");
    assert_eq!(page.eval("document.activeElement.getAttribute('aria-expanded')"), "true");
    let terms = page.eval("document.querySelector('.terms').innerText");
    for name in ["H normalised", "f of the next step", "bonus", "mean over steps", "credit"] {
        assert!(terms.as_str().unwrap().contains(name), "{terms}");
    }
    // Marks in the list, which the server counted, are those in the conversation.
    let marked = page.eval("document.querySelectorAll('.step.marked').length").as_u64().unwrap();
    let said = text(&mut page, ".row[aria-selected=true] small");
    assert!(marked > 0 && said.contains(&format!("{marked} confident error")), "{marked}: {said}");
    page.press("e");
    page.wait("document.activeElement.classList.contains('marked')");

    // The task's other rollouts.
    assert_eq!(page.eval("document.querySelectorAll('.group button').length"), 4);
    page.press("]");
    page.wait("location.hash.endsWith('/4/0.1')");
    page.press("[");
    page.wait("location.hash.endsWith('/4/0.0')");

    // Order, filters and search.
    let set = |label: &str, value: &str| {
        format!(
            "{{ const c = document.querySelector('[aria-label={label:?}]'); c.value = {value:?}; \
             c.dispatchEvent(new Event(c.tagName === 'INPUT' ? 'input' : 'change')); }}"
        )
    };
    page.eval(&set("outcome", "lost"));
    assert_eq!(page.eval(count), "4 of 12 episodes");
    page.eval(&set("outcome", ""));
    page.eval(&set("order", "-credit"));
    page.eval(&set("marks", "uncertain"));
    let some = page.eval(count);
    assert!(some.as_str().unwrap().starts_with(|c: char| c.is_ascii_digit() && c != '0'), "{some}");
    page.eval(&set("marks", ""));
    page.eval(&set("measure", "reward"));
    page.eval(&set("least", "0.5"));
    assert_eq!(page.eval(count), "8 of 12 episodes");
    page.eval(&set("least", ""));
    page.press("/");
    assert_eq!(page.eval("document.activeElement.type"), "search");
    page.eval(&set("search text", "WINDOW.planted"));
    page.wait(&format!("{count} === '1 of 12 episodes'"));
    page.eval(&set("search text", "no such words"));
    page.wait(&format!("{count} === '0 of 12 episodes'"));
    assert_eq!(text(&mut page, ".episode"), "No episode matches.");

    // Both steps at once, by an address.
    page.go(&format!("{}/#/run/on-0/credit/all/2.1.3", served.url));
    page.wait(&format!("{count} === '24 of 24 episodes'"));
    page.wait("document.querySelector('.row[aria-selected=true]')?.ariaPosInSet === '8'");
    quiet(&mut page, &served);
}

pub(crate) fn names_and_contrast() {
    let folder = tempfile::tempdir().unwrap();
    runs(folder.path());
    let served = Served::start(folder.path());
    let mut page = Page::open();
    let ready = [
        ("#/", "document.querySelectorAll('.runs tbody tr').length === 4"),
        ("#/compare/on-0/off-0", "document.querySelectorAll('.chart canvas').length >= 10"),
        ("#/run/on-0/tasks", "document.querySelectorAll('meter').length === 6"),
        ("#/run/on-0/credit", "document.querySelectorAll('.turn').length === 6"),
    ];
    for dark in [false, true] {
        page.shape(1280, 900, dark);
        for (hash, script) in ready {
            page.go(&format!("{}/{hash}", served.url));
            page.wait(script);
            page.eval("document.querySelector('.step')?.click()");
            let nameless = page.nameless();
            assert!(nameless.is_empty(), "{hash}: {nameless:#?}");
            let faint = page.eval(CONTRAST);
            assert_eq!(faint, json!([]), "{hash}, dark: {dark}");
        }
    }
    assert_eq!(
        page.eval("[...document.querySelectorAll('main, header.top, nav')].length > 2"),
        true
    );
}

/// Texts whose colour stands out less than 4.5 to 1 from what is behind them.
const CONTRAST: &str = r"(() => {
  const parse = c => { const m = c.match(/[\d.]+/g).map(Number); const s = /^color\(srgb/.test(c) ? 255 : 1;
    return [m[0] * s, m[1] * s, m[2] * s, m[3] ?? 1]; };
  const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] + under[i] * (1 - top[3]));
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
  const behind = node => { const stack = []; for (let n = node; n; n = n.parentElement) stack.push(parse(getComputedStyle(n).backgroundColor));
    return stack.reverse().reduce((under, top) => over(top, under), [255, 255, 255]); };
  const faint = new Set();
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some(c => c.nodeType === 3 && c.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest('svg, option, .unseen, .skip')) continue;
    const style = getComputedStyle(node), back = behind(node), fore = over(parse(style.color), back);
    const [a, b] = [light(fore), light(back)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) faint.add(`${node.tagName}.${node.className} ${ratio.toFixed(2)} ${node.textContent.slice(0, 30)}`);
  }
  return [...faint];
})()";

pub(crate) fn narrow() {
    let folder = tempfile::tempdir().unwrap();
    runs(folder.path());
    let served = Served::start(folder.path());
    let mut page = Page::open();
    page.shape(400, 800, false);
    for (hash, script) in [
        ("#/", "document.querySelectorAll('.runs tbody tr').length === 4"),
        (
            "#/compare/on-0/off-0/on-1/off-1",
            "document.querySelectorAll('.chart canvas').length >= 10",
        ),
        ("#/run/on-0/tasks", "document.querySelectorAll('meter').length === 6"),
        ("#/run/on-0/credit", "document.querySelectorAll('.turn').length === 6"),
        ("#/run/on-0/settings", "document.body.innerText.includes('empg.zeta')"),
    ] {
        page.go(&format!("{}/{hash}", served.url));
        page.wait(script);
        let wide = page.eval("document.documentElement.scrollWidth");
        assert!(wide.as_u64().unwrap() <= 400, "{hash}: {wide}");
    }
    quiet(&mut page, &served);
}
