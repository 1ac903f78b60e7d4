//! A headless Chromium, spoken to by the DevTools protocol.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// The browser: the one that `EMPG_CHROMIUM` names, or the first that is found.
pub(crate) fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("EMPG_CHROMIUM") {
        return Some(PathBuf::from(path)).filter(|path| path.is_file());
    }
    let paths = std::env::var_os("PATH")?;
    ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .flat_map(|name| std::env::split_paths(&paths).map(move |dir| dir.join(name)))
        .find(|path| path.is_file())
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// A page in a browser of its own.
pub(crate) struct Page {
    socket: WebSocket<TcpStream>,
    session: String,
    last: u64,
    events: VecDeque<Value>,
    browser: Child,
    _profile: TempDir,
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}

impl Page {
    /// Opens an empty page.
    pub(crate) fn open() -> Self {
        let path = find().expect("a browser is here where these tests run");
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Command::new(path)
            .args(["--headless=new", "--remote-debugging-port=0", "--no-sandbox", "--disable-gpu"])
            .args([
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--hide-scrollbars",
                "--disable-quic",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(browser.stderr.take().unwrap()).lines();
        let url = lines
            .by_ref()
            .map(|line| line.unwrap())
            .find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned))
            .expect("the browser says where it listens");
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let address = url.trim_start_matches("ws://").split('/').next().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = tungstenite::client(&url, stream).unwrap();
        let session = String::new();
        let mut page =
            Self { socket, session, last: 0, events: VecDeque::new(), browser, _profile: profile };
        let target = page.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = page.call("Target.attachToTarget", &attach);
        page.session = text(&attached["sessionId"]);
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            page.call(&format!("{domain}.enable"), &json!({}));
        }
        page
    }

    /// Asks the browser.
    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let id = self.last;
        let mut request = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            request["sessionId"] = self.session.clone().into();
        }
        self.socket.send(Message::text(request.to_string())).unwrap();
        loop {
            let message = self.socket.read().unwrap_or_else(|e| panic!("{method}: {e}"));
            let Message::Text(text) = message else { continue };
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            if answer["method"].is_string() {
                self.events.push_back(answer);
            }
        }
    }

    /// The value of a script; promises are waited for.
    pub(crate) fn eval(&mut self, script: &str) -> Value {
        let parameters =
            json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let result = self.call("Runtime.evaluate", &parameters);
        assert!(result["exceptionDetails"].is_null(), "{script}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// Waits until a script's value is true.
    pub(crate) fn wait(&mut self, script: &str) {
        let begun = Instant::now();
        loop {
            let value = self.eval(script);
            if value == true {
                return;
            }
            if begun.elapsed() > PATIENCE {
                let text = self.eval("document.body.innerText");
                panic!("{script} stays {value}; the page: {text}; {:?}", self.complaints());
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Goes to an address and waits until the page is there.
    pub(crate) fn go(&mut self, url: &str) {
        self.call("Page.navigate", &json!({ "url": url }));
        self.wait("document.readyState === 'complete'");
    }

    /// Width and height, and whether the page is dark.
    pub(crate) fn shape(&mut self, width: u32, height: u32, dark: bool) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "ArrowDown" => (40, ""),
            "ArrowUp" => (38, ""),
            "PageDown" => (34, ""),
            "Home" => (36, ""),
            "End" => (35, ""),
            "Escape" => (27, ""),
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            other => (u32::from(other.to_ascii_uppercase().as_bytes()[0]), other),
        };
        let event = |kind: &str| json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
        self.call(
            "Input.dispatchKeyEvent",
            &event(if text.is_empty() { "rawKeyDown" } else { "keyDown" }),
        );
        self.call(
            "Input.dispatchKeyEvent",
            &json!({ "type": "keyUp", "key": key, "windowsVirtualKeyCode": code }),
        );
    }

    /// Errors that the page met: exceptions, words on the console, refused requests.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        // An answer comes after everything that happened before.
        self.eval("0");
        let told = |event: &Value| {
            let about = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(about["exceptionDetails"].to_string()),
                "Runtime.consoleAPICalled" => Some(about["args"].to_string()),
                "Log.entryAdded" if about["entry"]["level"] != "verbose" => {
                    Some(about["entry"].to_string())
                }
                _ => None,
            }
        };
        self.events.iter().filter_map(told).collect()
    }

    /// The addresses that the page asked for.
    pub(crate) fn requests(&mut self) -> Vec<String> {
        self.eval("0");
        let asked = |event: &Value| {
            (event["method"] == "Network.requestWillBeSent")
                .then(|| event["params"]["request"]["url"].as_str().map(str::to_owned))
                .flatten()
        };
        self.events.iter().filter_map(asked).collect()
    }

    /// What can be acted on but has no name for those who do not see it.
    pub(crate) fn nameless(&mut self) -> Vec<String> {
        const ROLES: [&str; 11] = [
            "button",
            "link",
            "checkbox",
            "combobox",
            "searchbox",
            "textbox",
            "spinbutton",
            "listbox",
            "option",
            "tab",
            "slider",
        ];
        let tree = self.call("Accessibility.getFullAXTree", &json!({}));
        let nodes = tree["nodes"].as_array().unwrap();
        let mut bad = Vec::new();
        for node in nodes.iter().filter(|n| n["ignored"] != true) {
            let role = node["role"]["value"].as_str().unwrap_or_default();
            let name = node["name"]["value"].as_str().unwrap_or_default();
            if ROLES.contains(&role) && name.trim().is_empty() {
                bad.push(node.to_string());
            }
        }
        bad
    }
}
