//! A tar archive of plain files (POSIX.1-2017 pax, "ustar Interchange Format"), compressed.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Everything in it lies in one directory.
const DIRECTORY: &str = "meshctl-bugreport";
const BLOCK: usize = 512;

/// Returns the archive of texts by name.
pub(super) fn gzipped(texts: &[(String, String)], now_secs: u64) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    let mut put = |bytes: &[u8]| packer.write_all(bytes).expect("memory takes everything");
    for (name, text) in texts {
        put(&header(
            &format!("{DIRECTORY}/{name}"),
            text.len(),
            now_secs,
        ));
        put(text.as_bytes());
        put(&vec![0; text.len().next_multiple_of(BLOCK) - text.len()]);
    }
    put(&[0; 2 * BLOCK]);
    packer.finish().expect("memory takes everything")
}

/// Offset and size of each field as in the standard; numbers are octal digits with a zero behind.
fn header(name: &str, length: usize, now_secs: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    let name = &name.as_bytes()[..name.len().min(100)];
    put(0, name);
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{length:011o}\0").as_bytes());
    put(136, format!("{now_secs:011o}\0").as_bytes());
    // The sum counts its own field as spaces.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn tar_reads_what_was_packed() {
        let texts = [("a.txt", "hello\n"), ("b/c.json", &*"x".repeat(512))];
        let texts = texts.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let packed = gzipped(&texts, 1_800_000_000);
        let run = |arguments: &[&str]| {
            let mut tar = Command::new("tar")
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            tar.stdin.take().unwrap().write_all(&packed).unwrap();
            String::from_utf8(tar.wait_with_output().unwrap().stdout).unwrap()
        };
        assert_eq!(
            run(&["tz"]),
            "meshctl-bugreport/a.txt\nmeshctl-bugreport/b/c.json\n"
        );
        assert_eq!(run(&["xzO"]), format!("hello\n{}", "x".repeat(512)));
    }
}
