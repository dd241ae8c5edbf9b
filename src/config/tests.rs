use super::*;

const GOOD: &str = "b7e151628aed2a6abf7158809cf4f3c7";
const OTHER: &str = "62e7160f38b4da56a784d9045190cfef";

fn read(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut pairs = vec![("SWITCHBOARD_JWT_SECRET", GOOD), ("SWITCHBOARD_PASSWORD_PEPPER", OTHER)];
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
        (("SWITCHBOARD_HTTP_ADDR", "everywhere"), "SWITCHBOARD_HTTP_ADDR", "such as 127.0.0.1:8000"),
        (("SWITCHBOARD_HTTP_ADRR", "127.0.0.1:1"), "SWITCHBOARD_HTTP_ADRR", "SWITCHBOARD_HTTP_ADDR"),
        (("SWITCHBOARD_OPS_ADDR", "127.0.0.1:8000"), "SWITCHBOARD_OPS_ADDR", "127.0.0.1:9464"),
        (("SWITCHBOARD_JWT_SECRET", ""), "SWITCHBOARD_JWT_SECRET", "openssl rand -hex 32"),
        (("SWITCHBOARD_JWT_SECRET", "short"), "SWITCHBOARD_JWT_SECRET", "at least 32"),
        (("SWITCHBOARD_DATABASE_MAX_CONNECTIONS", "many"), "SWITCHBOARD_DATABASE_MAX_CONNECTIONS", "whole number"),
        (("SWITCHBOARD_DATABASE_MAX_CONNECTIONS", "0"), "SWITCHBOARD_DATABASE_MAX_CONNECTIONS", "between 1 and"),
        (("DATABASE_URL", "mysql://u:hunter2@h/d"), "DATABASE_URL", "postgres://"),
        (("SWITCHBOARD_MANGO_API_KEY", "key"), "SWITCHBOARD_MANGO_API_SALT", "both"),
        (("SWITCHBOARD_PASSWORD_COST", "4"), "SWITCHBOARD_PASSWORD_COST", "between 12"),
        (("SWITCHBOARD_BUSINESS_HOURS", "always"), "SWITCHBOARD_BUSINESS_HOURS", "Mon-Sat 08:00-20:00 Europe/Moscow"),
        (("SWITCHBOARD_TELEPHONY_REGION", "Mars"), "SWITCHBOARD_TELEPHONY_REGION", "RU"),
        (("SWITCHBOARD_HTTP_ALLOWED_ORIGINS", "http://a/b"), "SWITCHBOARD_HTTP_ALLOWED_ORIGINS", "scheme://"),
        (("SWITCHBOARD_FILES_STORE", "/var/files"), "SWITCHBOARD_FILES_STORE", "s3://bucket/prefix"),
        (("SWITCHBOARD_FILES_STORE", "https://bucket/prefix"), "SWITCHBOARD_FILES_STORE", "s3://bucket/prefix"),
        (("SWITCHBOARD_RECORDINGS_MAX_ATTEMPTS", "0"), "SWITCHBOARD_RECORDINGS_MAX_ATTEMPTS", "between 1 and"),
        (("SWITCHBOARD_TLS_CERT_FILE", "/tls.crt"), "SWITCHBOARD_TLS_KEY_FILE", "SWITCHBOARD_TLS_CERT_FILE is"),
        (("SWITCHBOARD_TLS_KEY_FILE", "/tls.key"), "SWITCHBOARD_TLS_CERT_FILE", "SWITCHBOARD_TLS_KEY_FILE is"),
        (("SWITCHBOARD_REPLICAS", "11"), "SWITCHBOARD_LIMITS_LOGIN_IP", "its burst"),
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
fn a_weak_secret_is_refused_wherever_it_stands() {
    let keys = ["JWT_SECRET", "JWT_PREVIOUS_SECRET", "PASSWORD_PEPPER", "PASSWORD_PREVIOUS_PEPPER"];
    for key in keys.map(|key| format!("SWITCHBOARD_{key}")) {
        for (weak, why) in [
            ("b7e151628aed2a6abf7158809cf4f3c", "too short: at least 32"),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "pattern"),
            ("0011223011223011223011223011223011223", "pattern"),
            ("0123456789abcdef0123456789abcdef", "pattern"),
            ("correct horse batterycorrect horse batterycorr", "pattern"),
            ("Change-Me-b7e151628aed2a6abf7158809cf4f3c7", "example"),
            ("b7e151628aed2a6abf7158809cf4f3c7-CHANGEME", "example"),
            ("b7e151628aed2a6abf-example-7158809cf4f3c7", "example"),
            ("this is a very secret text, is it not", "example"),
            ("my password for the production server", "example"),
            ("b7e151628aed2a6abf-SAMPLE-7158809cf4f3c7", "example"),
        ] {
            let error = read(&[(&key, weak)]).expect_err(weak);
            assert_eq!(error.setting, key);
            assert!(error.problem.contains(why) && error.problem.contains("openssl rand -hex 32"), "{weak}: {error}");
            assert!(!error.to_string().contains(weak), "the secret is in the message: {error}");
        }
        let taken = if key.ends_with("JWT_SECRET") { OTHER } else { GOOD };
        let error = read(&[(&key, taken)]).expect_err(&key);
        assert!(error.problem.contains("is the same as"), "{error}");
    }
    let passport = "SWITCHBOARD_PRIVACY_PASSPORT_KEY";
    for key in ["0".repeat(64), "0123456789abcdef".repeat(4), "xyz".to_owned()] {
        assert_eq!(read(&[(passport, &key)]).expect_err(&key).setting, passport);
    }
    read(&[(passport, &format!("{GOOD}{OTHER}"))]).unwrap();
    // At the least length, and of an alphabet of few.
    read(&[("SWITCHBOARD_JWT_SECRET", "30313233343536373839616263646566")]).unwrap();
}

#[test]
fn a_secret_has_no_place_in_a_file_of_settings() {
    let file = std::env::temp_dir().join(format!("switchboard-secret-test-{}", std::process::id()));
    let mut refused = 0;
    for (section, entries) in &DEFAULTS.parse::<toml::Table>().unwrap() {
        for name in entries.as_table().unwrap().keys().filter(|name| is_secret(&format!("{section}.{name}"))) {
            for value in ["\"hunter2\"", "2222222", "[\"hunter2\"]"] {
                std::fs::write(&file, format!("[{section}]\n{name} = {value}\n")).unwrap();
                let error = Settings::read(Some(&file), []).unwrap_err();
                assert_eq!(error.setting, format!("{section}.{name}"));
                assert!(error.problem.contains(&source::env_name(&error.setting)) && error.problem.contains("_FILE"));
                assert!(!error.problem.contains('2'), "{error}");
            }
            refused += 1;
        }
    }
    assert!(refused >= 10, "{refused}");
    // What documents the defaults can be a file of settings.
    std::fs::write(&file, DEFAULTS).unwrap();
    Settings::read(Some(&file), []).unwrap();
    std::fs::remove_file(file).unwrap();
}

#[test]
fn what_is_printed_of_a_setting_follows_from_its_type() {
    const PLANTED: &str = "planted-8aed2a6abf7158809cf4";
    let defaults = Settings::read(None, []).unwrap();
    let mut hidden = Vec::new();
    for (section, entries) in &DEFAULTS.parse::<toml::Table>().unwrap() {
        for (name, _) in entries.as_table().unwrap().iter().filter(|(_, value)| value.is_str()) {
            let key = format!("{section}.{name}");
            let mut settings = defaults.clone();
            settings.set_if_default(&key, PLANTED);
            let (shown, debugged) = (settings.render(), format!("{settings:?}"));
            assert_eq!(shown, debugged);
            // An address, a rate or a choice cannot be that.
            let typed = settings.config().map_or_else(|error| error.to_string(), |config| format!("{config:?}"));
            let secret = typed.contains("Secret(redacted)");
            assert_eq!(shown.contains(PLANTED), !secret, "{key}: {shown}");
            assert!(!secret || !typed.contains(PLANTED), "{key}: {typed}");
            assert_eq!(is_secret(&key), secret, "{key}");
            if secret {
                assert!(shown.contains(&format!("{name} = \"<redacted>\"")), "{key}: {shown}");
                hidden.push(key);
            }
        }
    }
    for key in ["database.url", "redis.url", "jwt.previous_secret", "generic.secret", "privacy.passport_key"] {
        assert!(hidden.iter().any(|hidden| hidden == key), "{key}: {hidden:?}");
    }
    // What `config` prints can be fed back with --config, secrets aside.
    assert!(defaults.render().parse::<toml::Table>().is_ok());
}
