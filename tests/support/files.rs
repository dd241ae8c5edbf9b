//! Directories of a test's own, and what is uploaded.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A path below the system's temporary directory where nothing is yet; whatever is there in the end
/// is removed with it.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Not created: what should create it is often the thing under test.
    pub fn reserve() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Not below target: PostgreSQL runs as another user when the tests run as root.
        let path = std::env::temp_dir().join(format!("switchboard-files-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    pub fn create() -> Self {
        let dir = Self::reserve();
        std::fs::create_dir(&dir.0).unwrap();
        dir
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// As the text of a setting.
    pub fn text(&self) -> String {
        self.0.to_str().unwrap().to_owned()
    }

    /// Every file in it, however deep.
    pub fn files(&self) -> Vec<PathBuf> {
        let (mut found, mut open) = (Vec::new(), vec![self.0.clone()]);
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.path().is_dir() { open.push(entry.path()) } else { found.push(entry.path()) }
            }
        }
        found
    }

    /// Writes a file into it; the file's path.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const BOUNDARY: &str = "----boundary";
/// Media type of a [`form`].
pub const FORM: &str = "multipart/form-data; boundary=----boundary";

/// A picture of so many bytes, as far as anybody looks.
pub fn png(bytes: usize) -> Vec<u8> {
    let mut content = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    content.extend((content.len()..bytes).map(|n| u8::try_from(n % 251).unwrap()));
    content
}

/// One field of a form.
pub fn field(name: &str, file_name: Option<&str>, content: &[u8]) -> Vec<u8> {
    let file_name = file_name.map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
    let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file_name}\r\n\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

/// A form of them.
pub fn form(fields: &[Vec<u8>]) -> Vec<u8> {
    [fields.concat(), format!("--{BOUNDARY}--\r\n").into_bytes()].concat()
}

/// The form of an upload.
pub fn photo(content: &[u8]) -> Vec<u8> {
    form(&[field("kind", None, b"photo"), field("file", Some("tap.png"), content)])
}
