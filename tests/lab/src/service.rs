//! Small services on a lab's machines, for clients to reach or be denied.

use std::fs;
use std::time::Duration;

use crate::error::{Doing, LabError};
use crate::namespace::Namespace;
use crate::process::Process;
use crate::wait::wait_until;

const LISTEN_DEADLINE: Duration = Duration::from_secs(15);
/// Reads the request's head, then answers with the text given as `$1`.
const ANSWER: &str = "\
while read -r line && [ \"$line\" != \"$(printf '\\r')\" ]; do :; done
printf 'HTTP/1.0 200 OK\\r\\n\\r\\n%s\\n' \"$1\"
";

impl Namespace {
    /// Starts a web server on all addresses of this machine; every request gets `answer`.
    ///
    /// # Errors
    ///
    /// When the port is taken, or `socat` is not installed.
    pub fn serve_http(&self, port: u16, answer: &str) -> Result<Process, LabError> {
        let script = self.lab().directory().join("answer.sh");
        fs::write(&script, ANSWER).doing(format_args!("write {}", script.display()))?;
        let handler = format!("EXEC:\"sh {} '{answer}'\"", script.display());
        let listen = format!("TCP6-LISTEN:{port},ipv6only=0,fork,reuseaddr");
        self.serve("tcp", port, &[&listen, &handler])
    }

    /// Starts a server that sends every UDP datagram back, on all addresses of this machine.
    ///
    /// # Errors
    ///
    /// When the port is taken, or `socat` is not installed.
    pub fn serve_udp_echo(&self, port: u16) -> Result<Process, LabError> {
        let listen = format!("UDP6-LISTEN:{port},ipv6only=0,fork,reuseaddr");
        self.serve("udp", port, &[&listen, "EXEC:cat"])
    }

    fn serve(&self, protocol: &str, port: u16, ends: &[&str]) -> Result<Process, LabError> {
        let name = format!("{}-{protocol}{port}", self.name());
        let mut process = self.launch("socat").args(ends).spawn(&name)?;
        let filter = format!("sport = :{port}");
        wait_until(&format!("{name} listens"), LISTEN_DEADLINE, || {
            if !process.is_running()? {
                return Err(LabError::new(format!(
                    "{name} ended: {}",
                    process.stderr()?
                )));
            }
            let listening = format!("--{protocol}");
            let sockets = self.run("ss", ["-lnH", &listening, &filter])?;
            Ok((!sockets.stdout.is_empty()).then_some(()))
        })?;
        Ok(process)
    }
}
