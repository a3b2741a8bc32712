//! Python's `websockets`: upgraded connections, messages of every size, closing with a reason.

use lab::LabError;

use crate::place::{Place, python};

const PORT: u16 = 8765;

#[test]
fn websockets_talk_until_one_says_bye() -> Result<(), LabError> {
    let place = Place::start()?;
    let _server = place.serve_python("websocket_server.py", PORT)?;
    for way in place.ways("chat")? {
        let url = format!("ws://{}:{PORT}/", way.host);
        let ran = python(way.from, "websocket_client.py")?.arg(url).run()?;
        let said = ran.success()?.stdout;
        assert!(said.contains("20 conversations"), "{said}");
    }
    Ok(())
}
