//! Planted secrets and personal data, and where they must never turn up: `make security` runs all of tests/api with
//! `SWITCHBOARD_TEST_WATCH` set (see `support::watch`), and then searches everything that the servers said.

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Command,
};

use regex::bytes::{Regex, RegexSet};

use crate::support::{
    GENERIC_SECRET, MANGO_KEY, MANGO_SALT, PASSWORD,
    files::TempDir,
    watch::{BODIES, LOGS, METRICS, PLANTED, TRACE, VARIABLE},
};

/// What secrets and personal data look like, whoever made them: a name, a pattern, and a line that it finds.
const SHAPES: [(&str, &str, &str); 6] = [
    ("access token", r"eyJ[\w-]{8,}\.[\w-]{8,}", r#"{"token":"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.c2ln"}"#),
    ("refresh token", r"swr_[\w-]{20,}", "swr_Jx1vEo0Y2b7rZ5uQmK8sT3wN6pLcHdAf"),
    ("password hash", r"\$2[abxy]\$\d\d\$", "hash=$2b$12$eImiTXuWVxfM37uY4JANjQ"),
    // A longer row of digits, or of hexadecimal ones, is an id, and behind a point are parts of a second.
    (
        "client's number",
        r"(?-u:^|[^0-9a-fA-F.])(\+?7|8)[ (-]*916[ )-]*(\d[ -]?){7}(?-u:$|[^0-9a-fA-F])",
        "8 (916) 123-45-67",
    ),
    ("mail address", r"(olga|ivan|me)@example\.com", "to olga@example.com"),
    ("passport", r"(?-u:^|[^0-9a-fA-F.])(4509)? ?731954(?-u:$|[^0-9a-fA-F])", "4509 731954"),
];

/// What the tests of the API plant, in so many words.
const WORDS: [&str; 18] = [
    PASSWORD,
    MANGO_KEY,
    MANGO_SALT,
    GENERIC_SECRET,
    // Passwords of people whom tests create, change or fail to sign in as.
    "horse battery",
    "staple in the rain",
    "a long sentence is best",
    "boss' password",
    "hunter2",
    // Secrets of the test servers.
    "0123456789abcdef0123456789abcdef",
    "fedcba9876543210fedcba9876543210",
    // Clients and staff, where they live, what they say.
    "Olga",
    "Ольга",
    "Ivan Petrov",
    "Tverskaya",
    "Arbat 1",
    "tap drips",
    "the code is 4711",
];

/// What must have been heard, or the search proves nothing: a file, and something in it.
const HEARD: [(&str, &str); 8] = [
    (TRACE, r#""message":"new""#),
    (TRACE, "POST /api/v1/auth/login"),
    (TRACE, r#""level":"TRACE""#),
    (TRACE, "process mango summary"),
    (BODIES, "bad_credentials"),
    (BODIES, "\"invalid\""),
    (METRICS, "http_server_request_duration_seconds_count"),
    (LOGS, "\"ready\""),
];

/// So many characters of a token are enough to know it by.
const END: usize = 24;

/// Searches for the shapes, the words and what was planted during a run.
struct Search {
    shapes: RegexSet,
    words: Regex,
}

impl Search {
    fn new(planted: &[String]) -> Self {
        // The end of a token is the part that no other has.
        let ends = planted.iter().map(|secret| &secret[secret.len().saturating_sub(END)..]);
        let words = WORDS.iter().copied().chain(ends).map(regex::escape);
        Self {
            shapes: RegexSet::new(SHAPES.map(|(_, pattern, _)| pattern)).unwrap(),
            words: Regex::new(&words.collect::<Vec<_>>().join("|")).unwrap(),
        }
    }

    /// What a line has that it must not have.
    fn find(&self, line: &[u8]) -> Option<String> {
        if let Some(shape) = self.shapes.matches(line).iter().next() {
            return Some(SHAPES[shape].0.to_owned());
        }
        self.words.find(line).map(|found| String::from_utf8_lossy(found.as_bytes()).into_owned())
    }
}

fn lines(file: &Path) -> impl Iterator<Item = Vec<u8>> {
    let file = File::open(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    BufReader::with_capacity(1 << 20, file).split(b'\n').map(Result::unwrap)
}

/// Runs tests/api, watched, unless somebody has; where what it said is.
fn watched() -> PathBuf {
    if let Some(dir) = env::var_os(VARIABLE) {
        return dir.into();
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("watch");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let done = Command::new(cargo).args(["test", "--locked", "--quiet", "--test", "api"]).env(VARIABLE, &dir).status();
    assert!(done.unwrap().success(), "tests/api fails when it is watched");
    dir
}

#[test]
fn the_whole_suite_at_trace_tells_nobody_a_secret() {
    let dir = watched();
    let planted: Vec<String> = lines(&dir.join(PLANTED))
        .map(|line| String::from_utf8(line).unwrap())
        .filter(|line| line.len() >= 16)
        .collect();
    assert!(planted.len() > 100, "only {} secrets were handed out", planted.len());
    let search = Search::new(&planted);
    let (mut read, mut hits) = (0_usize, Vec::new());
    let mut unheard: Vec<(&str, &str)> = HEARD.to_vec();
    for kind in [TRACE, BODIES, METRICS, LOGS] {
        for line in lines(&dir.join(kind)) {
            read += 1;
            unheard.retain(|(file, text)| *file != kind || !contains(&line, text));
            if let Some(what) = search.find(&line) {
                hits.push(format!("{kind}: {what}: {}", String::from_utf8_lossy(&line)));
            }
        }
    }
    println!(
        "{read} lines, {} secrets handed out beside {} words and {} shapes: {} hits",
        planted.len(),
        WORDS.len(),
        SHAPES.len(),
        hits.len()
    );
    assert!(unheard.is_empty(), "not heard: {unheard:?}");
    hits.truncate(20);
    assert!(hits.is_empty(), "{hits:#?}");
}

fn contains(line: &[u8], text: &str) -> bool {
    line.windows(text.len()).any(|part| part == text.as_bytes())
}

/// A search that finds nothing is worth as much as what it would have found.
#[test]
fn each_secret_would_be_found() {
    let handed_out = "q7Jx1vEo0Y2b7rZ5uQmK8sT3wN6pLcHdAf".to_owned();
    let search = Search::new(std::slice::from_ref(&handed_out));
    for (shape, _, sample) in SHAPES {
        assert_eq!(search.find(sample.as_bytes()).as_deref(), Some(shape));
    }
    for word in WORDS.iter().copied().chain([handed_out.as_str()]) {
        assert!(search.find(format!(r#"{{"message":"x","field":"…{word}…"}}"#).as_bytes()).is_some(), "{word}");
    }
    for harmless in [
        r#"{"trace_id":"4bf92f3577b34da6a3ce929d0e791612345678ab"}"#,
        r#"{"timestamp":"2026-11-23T03:02:19.731954Z","elapsed":0.79161234567}"#,
        "http_server_active_requests 1",
    ] {
        assert_eq!(search.find(harmless.as_bytes()), None, "{harmless}");
    }
    // Whole files are read, the last line too.
    let dir = TempDir::create();
    let file = dir.file("log", &format!("first\n{handed_out}"));
    let hits = lines(Path::new(&file)).filter(|line| search.find(line).is_some()).count();
    assert_eq!(hits, 1);
}
