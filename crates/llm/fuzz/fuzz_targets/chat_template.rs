//! Any text as a chat template over a conversation: it renders, or says why not, and ends.
#![no_main]

use empg_llm::{ChatTemplate, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(source) = std::str::from_utf8(data) else { return };
    if let Ok(template) = ChatTemplate::new(source, [("bos_token".into(), "<s>".into())].into()) {
        let messages = [Message::new("user", "Hi\n'x'"), Message::new("assistant", "é")];
        let _ = template.render(&messages, true);
        let _ = template.render_json(
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],
                "tools":[{"z":1,"a":[2.5,null]}]}"#,
        );
    }
});
