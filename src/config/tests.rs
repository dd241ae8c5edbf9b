use super::*;

const GOOD: &str = "0123456789abcdef0123456789abcdef";

fn read(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut pairs = vec![("SWITCHBOARD_JWT_SECRET", GOOD), ("SWITCHBOARD_PASSWORD_PEPPER", GOOD)];
    pairs.retain(|(name, _)| !environment.iter().any(|(other, _)| other == name));
    pairs.extend(environment);
    let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Settings::read(None, pairs)?.config()?;
    config.validate().map(|()| config)
}

#[test]
fn defaults_need_only_the_two_secrets() {
    let config = read(&[]).unwrap();
    assert_eq!(config.http.addr.to_string(), "127.0.0.1:8000");
    assert_eq!(config.ops.addr.to_string(), "127.0.0.1:9464");
}

#[test]
fn the_environment_overrides_with_the_type_of_the_default() {
    let config = read(&[
        ("SWITCHBOARD_DATABASE_MAX_CONNECTIONS", "7"),
        ("SWITCHBOARD_HTTP_TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1/32"),
        ("DATABASE_URL", "postgres://u:p@h/d"),
    ])
    .unwrap();
    assert_eq!(config.database.max_connections, 7);
    assert_eq!(config.http.trusted_proxies.len(), 2);
    assert_eq!(config.database.url.expose(), "postgres://u:p@h/d");
}

#[test]
fn a_wrong_setting_names_itself_and_the_fix() {
    for (environment, name, fix) in [
        (("SWITCHBOARD_HTTP_ADDR", "everywhere"), "SWITCHBOARD_HTTP_ADDR", "socket address"),
        (("SWITCHBOARD_HTTP_ADRR", "127.0.0.1:1"), "SWITCHBOARD_HTTP_ADRR", "SWITCHBOARD_HTTP_ADDR"),
        (("SWITCHBOARD_OPS_ADDR", "127.0.0.1:8000"), "SWITCHBOARD_OPS_ADDR", "127.0.0.1:9464"),
        (("SWITCHBOARD_JWT_SECRET", ""), "SWITCHBOARD_JWT_SECRET", "openssl rand -hex 32"),
        (("SWITCHBOARD_JWT_SECRET", "short"), "SWITCHBOARD_JWT_SECRET", "at least 32"),
        (("SWITCHBOARD_JWT_SECRET", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), "SWITCHBOARD_JWT_SECRET", "random"),
        (("SWITCHBOARD_DATABASE_MAX_CONNECTIONS", "many"), "SWITCHBOARD_DATABASE_MAX_CONNECTIONS", "whole number"),
        (("SWITCHBOARD_DATABASE_MAX_CONNECTIONS", "0"), "SWITCHBOARD_DATABASE_MAX_CONNECTIONS", "between 1 and"),
        (("DATABASE_URL", "mysql://u:hunter2@h/d"), "DATABASE_URL", "postgres://"),
        (("SWITCHBOARD_MANGO_API_KEY", "key"), "SWITCHBOARD_MANGO_API_SALT", "both"),
        (("SWITCHBOARD_PASSWORD_COST", "4"), "SWITCHBOARD_PASSWORD_COST", "between 12"),
        (("SWITCHBOARD_TELEPHONY_REGION", "Mars"), "SWITCHBOARD_TELEPHONY_REGION", "RU"),
        (("SWITCHBOARD_HTTP_ALLOWED_ORIGINS", "http://a/b"), "SWITCHBOARD_HTTP_ALLOWED_ORIGINS", "scheme://"),
        (("SWITCHBOARD_FILES_STORE", "/var/files"), "SWITCHBOARD_FILES_STORE", "s3://bucket/prefix"),
        (("SWITCHBOARD_FILES_STORE", "https://bucket/prefix"), "SWITCHBOARD_FILES_STORE", "s3://bucket/prefix"),
        (("SWITCHBOARD_RECORDINGS_MAX_ATTEMPTS", "0"), "SWITCHBOARD_RECORDINGS_MAX_ATTEMPTS", "between 1 and"),
        (("SWITCHBOARD_TLS_CERT_FILE", "/tls.crt"), "SWITCHBOARD_TLS_KEY_FILE", "SWITCHBOARD_TLS_CERT_FILE is"),
        (("SWITCHBOARD_TLS_KEY_FILE", "/tls.key"), "SWITCHBOARD_TLS_CERT_FILE", "SWITCHBOARD_TLS_KEY_FILE is"),
        (("SWITCHBOARD_LOG_LEVEL", "a=b=c"), "SWITCHBOARD_LOG_LEVEL", "info"),
        (("SWITCHBOARD_LOG_FORMAT", "xml"), "SWITCHBOARD_LOG_FORMAT", "pretty"),
    ] {
        let error = read(&[environment]).expect_err(environment.0);
        assert_eq!(error.setting, name);
        assert!(error.problem.contains(fix), "{name}: {}", error.problem);
        assert!(!error.to_string().contains("hunter2"), "a secret is in the message");
    }
}

#[test]
fn secrets_come_from_files_too_but_not_from_both() {
    let file = std::env::temp_dir().join(format!("switchboard-config-test-{}", std::process::id()));
    std::fs::write(&file, format!("{GOOD}ff\n")).unwrap();
    let path = file.to_str().unwrap();
    let pairs = |extra: &[(&str, &str)]| {
        let mut all = vec![("SWITCHBOARD_JWT_SECRET_FILE".to_owned(), path.to_owned())];
        all.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all
    };
    let settings = Settings::read(None, pairs(&[])).unwrap();
    assert_eq!(settings.config().unwrap().jwt.secret.expose(), format!("{GOOD}ff"));
    let both = Settings::read(None, pairs(&[("SWITCHBOARD_JWT_SECRET", GOOD)])).unwrap_err();
    assert!(both.problem.contains("keep one"), "{both}");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn rendering_and_debug_hide_secrets() {
    let pairs = [("SWITCHBOARD_JWT_SECRET".to_owned(), GOOD.to_owned())];
    let settings = Settings::read(None, pairs).unwrap();
    let shown = settings.render();
    assert!(shown.contains("secret = \"<redacted>\"  # SWITCHBOARD_JWT_SECRET"), "{shown}");
    assert!(!shown.contains(GOOD));
    assert!(!format!("{:?}", settings.config().unwrap()).contains(GOOD));
    // What `config` prints can be fed back with --config, secrets aside.
    assert!(shown.parse::<toml::Table>().is_ok());
}
