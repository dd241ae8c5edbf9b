//! What a content is, by its first bytes and never by what somebody says it is; and what a file may
//! be called.

use std::fmt::Write as _;

/// As many bytes as the types below need to show themselves.
pub const HEAD_BYTES: usize = 512;

/// Longest name that is kept, in bytes: what file systems take, minus room for an extension.
const MAX_NAME_BYTES: usize = 200;

/// A type that is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media {
    /// As in Content-Type.
    pub mime: &'static str,
    /// What names of such files may end in; the first is added to one that ends otherwise.
    extensions: &'static [&'static str],
    /// As the detector calls it.
    detected: &'static [&'static str],
}

/// Pictures, documents and sound that a browser cannot take for a page or a program.
const ACCEPTED: &[Media] = &[
    Media { mime: "image/jpeg", extensions: &["jpg", "jpeg"], detected: &["image/jpeg"] },
    Media { mime: "image/png", extensions: &["png"], detected: &["image/png"] },
    Media { mime: "image/webp", extensions: &["webp"], detected: &["image/webp"] },
    Media { mime: "image/heic", extensions: &["heic", "heif"], detected: &["image/heif"] },
    Media { mime: "application/pdf", extensions: &["pdf"], detected: &["application/pdf"] },
    Media { mime: "audio/mpeg", extensions: &["mp3"], detected: &["audio/mpeg"] },
    Media { mime: "audio/wav", extensions: &["wav"], detected: &["audio/x-wav"] },
    Media { mime: "audio/ogg", extensions: &["ogg", "oga", "opus"], detected: &["audio/ogg", "audio/opus"] },
];

impl Media {
    /// Of a content that begins with `head`; `None` for what is not taken in.
    #[must_use]
    pub fn of(head: &[u8]) -> Option<Self> {
        let detected = infer::get(head)?.mime_type();
        ACCEPTED.iter().find(|media| media.detected.contains(&detected)).copied()
    }

    /// The type with this name.
    #[must_use]
    pub fn named(mime: &str) -> Option<Self> {
        ACCEPTED.iter().find(|media| media.mime == mime).copied()
    }

    /// Whether one listens to it.
    #[must_use]
    pub fn is_audio(self) -> bool {
        self.mime.starts_with("audio/")
    }

    /// The usual extension.
    #[must_use]
    pub fn extension(self) -> &'static str {
        self.extensions.first().copied().unwrap_or("bin")
    }

    /// A name for display and download made from what the client called the file: no path, nothing
    /// invisible, and an extension that tells the truth.
    #[must_use]
    pub fn name(self, given: &str) -> String {
        let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
        let visible: String = last.chars().filter(|character| is_visible(*character)).collect();
        let mut name = visible.trim_matches(|character: char| character.is_whitespace() || character == '.').to_owned();
        name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
        if name.is_empty() {
            "file".clone_into(&mut name);
        }
        let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_lowercase());
        if !extension.is_some_and(|extension| self.extensions.contains(&extension.as_str())) {
            name.push('.');
            name.push_str(self.extension());
        }
        name
    }
}

/// Control characters would break a header; direction marks make "gpj.exe" look like "exe.jpg".
fn is_visible(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '"')
}

/// `Content-Disposition` of a download (RFC 6266): the name in ASCII for old readers, and as it is.
#[must_use]
pub fn disposition(name: &str) -> String {
    let plain = |character: char| character.is_ascii_graphic() && !matches!(character, '"' | '\\' | '%');
    let ascii: String = name.chars().map(|c| if plain(c) || c == ' ' { c } else { '_' }).collect();
    let mut text = format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''");
    for byte in name.bytes() {
        // attr-char of RFC 8187.
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

    #[test]
    fn contents_are_known_by_their_first_bytes() {
        for (head, mime) in [
            (PNG, Some("image/png")),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", Some("image/jpeg")),
            (b"RIFF\x24\0\0\0WEBPVP8 ", Some("image/webp")),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Some("image/heic")),
            (b"%PDF-1.7\n", Some("application/pdf")),
            (b"ID3\x03\0\0\0\0\0\0", Some("audio/mpeg")),
            (b"\xff\xfb\x90\x44\0\0\0\0", Some("audio/mpeg")),
            (b"RIFF\x24\0\0\0WAVEfmt ", Some("audio/wav")),
            (b"OggS\0\x02\0\0\0\0\0\0\0\0", Some("audio/ogg")),
            (b"<!DOCTYPE html><script>", None),
            (b"<svg xmlns=\"http://www.w3.org/2000/svg\">", None),
            (b"MZ\x90\0", None),
            (b"\x7fELF\x02\x01\x01", None),
            (b"PK\x03\x04\x14\0\0\0", None),
            (b"GIF89a", None),
            (b"{\"a\": 1}", None),
            (b"", None),
        ] as [(&[u8], Option<&str>); 17]
        {
            assert_eq!(Media::of(head).map(|media| media.mime), mime, "{head:?}");
        }
    }

    #[test]
    fn names_are_kept_without_what_could_hurt() {
        let png = Media::of(PNG).unwrap();
        for (given, name) in [
            ("photo.png", "photo.png"),
            ("Фото кухни.PNG", "Фото кухни.PNG"),
            ("../../etc/passwd", "passwd.png"),
            ("C:\\Users\\me\\tap.png", "tap.png"),
            ("page.html", "page.html.png"),
            ("exe\u{202e}gnp.png", "exegnp.png"),
            ("a\r\nSet-Cookie: b.png", "aSet-Cookie: b.png"),
            ("..", "file.png"),
            (".png", "png.png"),
            ("", "file.png"),
        ] {
            assert_eq!(png.name(given), name, "{given:?}");
        }
        assert_eq!(png.name(&"я".repeat(300)).len(), MAX_NAME_BYTES + ".png".len());
    }

    #[test]
    fn a_disposition_carries_the_name_twice() {
        assert_eq!(disposition("a b.png"), "attachment; filename=\"a b.png\"; filename*=UTF-8''a%20b.png");
        assert_eq!(
            disposition("Чек\"1.pdf"),
            "attachment; filename=\"____1.pdf\"; filename*=UTF-8''%D0%A7%D0%B5%D0%BA%221.pdf"
        );
    }

    proptest! {
        #[test]
        fn any_name_becomes_one_that_a_header_and_the_database_take(given: String) {
            let name = Media::of(PNG).unwrap().name(&given);
            prop_assert!((5..=255).contains(&name.len()));
            prop_assert!(!name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\')));
            prop_assert!(name.to_lowercase().ends_with(".png"));
            prop_assert!(axum::http::HeaderValue::try_from(disposition(&name)).is_ok());
        }
    }
}
