use proptest::prelude::*;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::*;
use crate::calls::providers::Direction;
use crate::calls::providers::{CallEvent, LegEvent, LegState, Location, Party, Summary};

/// A delivery whose signature was computed with `sha256sum`.
const SIGNED_JSON: &str = r#"{"entry_id":"NDE1MjAxOTA=","call_id":"MToxMDA1NzU5","timestamp":1700000000,"seq":1,"call_state":"Appeared","location":"ivr","from":{"number":"79990000001"},"to":{"number":"74950000002","line_number":"74950000002"}}"#;
const SIGNATURE: &str = "7b4b608581de8bedb3c1e4fb23d5ee14e42bbe4cf2cd3fa6e84b033819b3fd93";

fn credentials() -> Credentials {
    Credentials { api_key: "demo-key".to_owned(), api_salt: "demo-salt".to_owned() }
}

fn form(key: &str, sign: &str, json: &str) -> Vec<u8> {
    form_urlencoded::Serializer::new(String::new())
        .append_pair("vpbx_api_key", key)
        .append_pair("sign", sign)
        .append_pair("json", json)
        .finish()
        .into_bytes()
}

fn signed(json: &str) -> Vec<u8> {
    form("demo-key", &sign(&credentials(), json), json)
}

fn refusal(body: &[u8]) -> IntakeError {
    verify(&credentials(), body).unwrap_err()
}

fn is_malformed(body: &[u8]) -> bool {
    matches!(verify(&credentials(), body), Err(IntakeError::Malformed(_)))
}

mod intake {
    use super::*;

    #[test]
    fn the_signature_is_the_documented_one() {
        assert_eq!(sign(&credentials(), SIGNED_JSON), SIGNATURE);
        let verified = verify(&credentials(), &form("demo-key", SIGNATURE, SIGNED_JSON)).unwrap();
        assert_eq!(verified.json, SIGNED_JSON);
    }

    #[test]
    fn a_foreign_key_is_refused_even_with_a_matching_signature() {
        let foreign = Credentials { api_key: "other-key".to_owned(), ..credentials() };
        let body = form("other-key", &sign(&foreign, "{}"), "{}");
        assert_eq!(refusal(&body), IntakeError::BadSignature);
        let body = form("other-key", &sign(&credentials(), "{}"), "{}");
        assert_eq!(refusal(&body), IntakeError::BadSignature);
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let flips = |text: &str| {
            let bytes = text.as_bytes().to_vec();
            (0..bytes.len() * 8).filter_map(move |bit| {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
            })
        };
        for key in flips("demo-key") {
            let body = form(&key, SIGNATURE, SIGNED_JSON);
            assert_eq!(refusal(&body), IntakeError::BadSignature);
        }
        for sign in flips(SIGNATURE) {
            let body = form("demo-key", &sign, SIGNED_JSON);
            assert_eq!(refusal(&body), IntakeError::BadSignature);
        }
        for json in flips(SIGNED_JSON) {
            let body = form("demo-key", SIGNATURE, &json);
            assert_eq!(refusal(&body), IntakeError::BadSignature);
        }
    }

    #[test]
    fn a_signature_of_another_length_or_case_is_refused() {
        for sign in ["", &SIGNATURE[..63], &SIGNATURE.to_uppercase()] {
            let body = form("demo-key", sign, SIGNED_JSON);
            assert_eq!(refusal(&body), IntakeError::BadSignature);
        }
        let long = form("demo-key", &format!("{SIGNATURE}0"), SIGNED_JSON);
        assert_eq!(refusal(&long), IntakeError::BadSignature);
    }

    #[test]
    fn a_body_that_is_not_the_promised_form_is_malformed() {
        for body in [
            "",
            "json",
            "{}",
            "vpbx_api_key=k&sign=s",
            "vpbx_api_key=k&json={}",
            "sign=s&json={}",
            "vpbx_api_key=k&sign=s&json={}&json={}",
            "vpbx_api_key=k&vpbx_api_key=k&sign=s&json={}",
            "vpbx_api_key=k&sign=s&sign=s&json={}",
            "vpbx_api_key=k&sign=s&json=%",
            "vpbx_api_key=k&sign=s&json=%7",
            "vpbx_api_key=k&sign=s&json=%7g",
            "vpbx_api_key=k&sign=s&json=%+1",
            "vpbx_api_key=k&sign=s&json=%ff",
            "vpbx_api_key=k&sign=s&json=%00",
            "vpbx_api_key=k&sign=s&json={}&other=%ff",
        ] {
            assert!(is_malformed(body.as_bytes()), "{body}");
        }
        assert!(is_malformed(b"vpbx_api_key=k&sign=s&json=\xff"));
    }

    #[test]
    fn other_fields_empty_pairs_and_any_order_are_fine() {
        let json = "%7b%7D";
        let sign = sign(&credentials(), "{}");
        let body = format!("&json={json}&&extra&more=1&sign={sign}&vpbx%5Fapi_key=demo-key&");
        assert_eq!(verify(&credentials(), body.as_bytes()).unwrap().json, "{}");
    }

    #[test]
    fn the_json_is_decoded_exactly_once() {
        let json = r#"{"a":"1%202+3 %7B"}"#;
        assert_eq!(verify(&credentials(), &signed(json)).unwrap().json, json);
    }

    #[test]
    fn debug_output_keeps_secrets_and_personal_data() {
        let credentials = format!("{:?}", credentials());
        assert!(!credentials.contains("demo"), "{credentials}");
        let verified = verify(&super::credentials(), &signed(SIGNED_JSON)).unwrap();
        let verified = format!("{verified:?}");
        assert!(!verified.contains("7999"), "{verified}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_calmly(body in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(verify(&credentials(), &body).is_err());
        }

        #[test]
        fn arbitrary_forms_are_refused_calmly(body in "((vpbx_api_key|sign|json|x)=[%0-9a-f{}+]{0,8}&?){0,6}") {
            prop_assert!(verify(&credentials(), body.as_bytes()).is_err());
        }

        #[test]
        fn any_signed_text_arrives_unchanged(json in "[^\0]*") {
            prop_assert_eq!(verify(&credentials(), &signed(&json)).unwrap().json, json);
        }

        #[test]
        fn a_changed_body_is_refused_or_means_the_same(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut body = signed(SIGNED_JSON);
            let at = at.index(body.len());
            body[at] = byte;
            // The hex digits of an escape may change their case without changing the text.
            if let Ok(verified) = verify(&credentials(), &body) {
                prop_assert_eq!(verified.json, SIGNED_JSON);
            }
        }
    }
}

mod kinds {
    use super::*;

    #[test]
    fn the_end_of_the_path_names_the_kind() {
        for kind in EventKind::ALL {
            let end = format!("events/{}", kind.as_str());
            for path in [end.clone(), format!("/{end}"), format!("/hooks/mango/{end}"), format!("/{end}/")] {
                assert_eq!(EventKind::from_path(&path), Some(kind), "{path}");
            }
        }
    }

    #[test]
    fn other_paths_name_no_kind() {
        for path in [
            "",
            "/",
            "/mango",
            "/call",
            "/events",
            "/events/",
            "/events/calls",
            "/events/dtmf",
            "/events/added",
            "/events/record/tagged",
            "/my-events/call",
            "/events/call/more",
        ] {
            assert_eq!(EventKind::from_path(path), None, "{path}");
        }
    }

    #[test]
    fn the_fields_give_the_kind_away() {
        for (json, kind) in [
            (SIGNED_JSON, Some(EventKind::Call)),
            (r#"{"entry_result":0}"#, Some(EventKind::Summary)),
            (r#"{"recording_id":"r","recording_state":"Started"}"#, Some(EventKind::Recording)),
            (r#"{"recording_id":"r"}"#, Some(EventKind::RecordAdded)),
            (r#"{"entry_id":"e"}"#, None),
            (r#"{"call_state":null}"#, None),
            (r#"["call_state"]"#, None),
            ("call_state", None),
        ] {
            assert_eq!(EventKind::infer(json), kind, "{json}");
        }
    }
}

mod identity {
    use super::*;

    fn key(kind: EventKind, payload: &Value) -> Identity {
        identify(kind, &payload.to_string())
    }

    fn call(entry_id: &str, call_id: &str, seq: impl Into<Value>) -> Value {
        json!({"entry_id": entry_id, "call_id": call_id, "seq": seq.into()})
    }

    #[test]
    fn keys_are_readable() {
        let ids = json!({"entry_id": "e=", "call_id": "c=", "seq": 3, "recording_id": "r="});
        for (kind, event_key) in [
            (EventKind::Call, "call:e=:c=:3"),
            (EventKind::Summary, "summary:e="),
            (EventKind::Recording, "recording:e=:c=:3:r="),
            (EventKind::RecordAdded, "record/added:e=:r="),
        ] {
            let identity = key(kind, &ids);
            assert_eq!(identity.event_key, event_key);
            assert_eq!(identity.call_key.as_deref(), Some("e="));
        }
    }

    #[test]
    fn notation_does_not_change_the_key() {
        let plain = key(EventKind::Call, &call("1", "2", 3));
        assert_eq!(key(EventKind::Call, &call("1", "2", "3")), plain);
        let numbers = json!({"seq": "03", "entry_id": 1, "call_id": 2, "news": [1]});
        assert_eq!(key(EventKind::Call, &numbers), plain);
    }

    #[test]
    fn an_unidentifiable_payload_is_known_by_its_hash() {
        for payload in [
            "",
            "not json",
            "[]",
            "{}",
            r#"{"entry_id":"e","call_id":"c"}"#,
            r#"{"entry_id":"e","seq":1}"#,
            r#"{"entry_id":"","call_id":"c","seq":1}"#,
            r#"{"entry_id":null,"call_id":"c","seq":1}"#,
            r#"{"entry_id":{},"call_id":"c","seq":1}"#,
            r#"{"entry_id":"e","call_id":"c","seq":"one"}"#,
            r#"{"entry_id":"e","call_id":"c","seq":-1}"#,
            r#"{"entry_id":"e\u0000","call_id":"c","seq":1}"#,
            r#"{"entry_id":"e","call_id":"c\n","seq":1}"#,
        ] {
            let identity = identify(EventKind::Call, payload);
            let hash = identity.event_key.strip_prefix("call:sha256:").unwrap();
            assert_eq!(hash.len(), 64, "{payload}");
            assert_eq!(identity.call_key, None, "{payload}");
            assert_eq!(identify(EventKind::Call, payload), identity);
        }
        // `printf '' | sha256sum`
        assert_eq!(
            identify(EventKind::Summary, "").event_key,
            "summary:sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn a_separator_in_an_id_cannot_forge_another_key() {
        let one = key(EventKind::Call, &call("a:b", "c", 1));
        let other = key(EventKind::Call, &call("a", "b:c", 1));
        assert_ne!(one.event_key, other.event_key);
        assert_eq!(one.call_key.as_deref(), Some("a:b"));
    }

    #[test]
    fn long_ids_are_hashed_and_still_told_apart() {
        let long = |end: &str| key(EventKind::Call, &call(&("x".repeat(5000) + end), "c", 1));
        let (one, other) = (long("1"), long("2"));
        assert_ne!(one.event_key, other.event_key);
        assert_ne!(one.call_key, other.call_key);
        assert_eq!(one.call_key.unwrap().len(), "sha256:".len() + 64);
    }

    proptest! {
        #[test]
        fn keys_are_short_storable_and_stable(json in any::<String>(), which in 0..4_usize) {
            let kind = EventKind::ALL[which];
            let identity = identify(kind, &json);
            prop_assert!(identity.event_key.len() <= MAX_EVENT_KEY);
            prop_assert!(!identity.event_key.chars().any(char::is_control));
            prop_assert_eq!(identify(kind, &json), identity);
        }

        #[test]
        fn keys_of_any_ids_are_short_and_storable(entry_id: String, call_id: String, seq: i64) {
            let identity = key(EventKind::Call, &call(&entry_id, &call_id, seq));
            prop_assert!(identity.event_key.len() <= MAX_EVENT_KEY);
            prop_assert!(!identity.event_key.chars().any(char::is_control));
            if let Some(call_key) = identity.call_key {
                prop_assert!(call_key.chars().count() <= MAX_TEXT);
                prop_assert!(!call_key.chars().any(char::is_control));
            }
        }

        #[test]
        fn intake_and_parse_name_the_call_alike(entry_id in "[^\0]{1,140}") {
            let mut payload: Value = serde_json::from_str(SIGNED_JSON).unwrap();
            payload["entry_id"] = entry_id.into();
            if let Ok(CallEvent::Leg(leg)) = parse(EventKind::Call, &payload.to_string()) {
                prop_assert_eq!(key(EventKind::Call, &payload).call_key, Some(leg.call_key));
            }
        }
    }
}

mod payloads {
    use super::*;
    use chrono::{DateTime, Utc};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn number(number: &str) -> Party {
        Party { number: Some(number.to_owned()), extension: None }
    }

    fn call() -> Value {
        serde_json::from_str(SIGNED_JSON).unwrap()
    }

    fn summary() -> Value {
        json!({
            "entry_id": "e", "call_direction": 1, "line_number": "74950000002",
            "from": {"number": "79990000001", "extension": ""},
            "to": {"number": "sip:101@pbx", "extension": 101},
            "create_time": 1_700_000_000, "forward_time": "1700000005", "talk_time": 0,
            "end_time": 1_700_000_045, "entry_result": "0", "disconnect_reason": "1120",
        })
    }

    fn leg(payload: &Value) -> LegEvent {
        match parse(EventKind::Call, &payload.to_string()) {
            Ok(CallEvent::Leg(leg)) => leg,
            other => panic!("{other:?}"),
        }
    }

    fn problem(kind: EventKind, mut payload: Value, field: &str, value: Value) -> String {
        payload[field] = value;
        parse(kind, &payload.to_string()).unwrap_err().to_string()
    }

    #[test]
    fn a_call_event_becomes_a_leg() {
        let expected = LegEvent {
            call_key: "NDE1MjAxOTA=".to_owned(),
            leg: "MToxMDA1NzU5".to_owned(),
            seq: 1,
            at: at(1_700_000_000),
            state: LegState::Appeared,
            location: Location::Ivr,
            from: number("79990000001"),
            to: number("74950000002"),
            line: Some("74950000002".to_owned()),
            disconnect_reason: None,
        };
        assert_eq!(leg(&call()), expected);
    }

    #[test]
    fn numbers_and_strings_are_interchangeable() {
        let mut quoted = call();
        quoted["seq"] = "1".into();
        quoted["timestamp"] = "1700000000".into();
        quoted["from"]["number"] = 79_990_000_001_u64.into();
        quoted["from"]["extension"] = "".into();
        quoted["to"]["extension"] = Value::Null;
        quoted["disconnect_reason"] = "".into();
        quoted["location"] = "ivr.2".into();
        quoted["unheard_of"] = json!({"deep": [1, 2, {}]});
        assert_eq!(leg(&quoted), leg(&call()));
    }

    #[test]
    fn a_side_may_be_absent() {
        for absent in [Value::Null, json!({}), json!([]), json!("")] {
            let mut payload = call();
            payload["from"] = absent.clone();
            payload["to"] = absent;
            let leg = leg(&payload);
            assert_eq!((leg.from, leg.to, leg.line), Default::default());
        }
    }

    #[test]
    fn a_summary_tells_the_whole_call() {
        let expected = CallEvent::Summary(Summary {
            call_key: "e".to_owned(),
            direction: Direction::Incoming,
            line: Some("74950000002".to_owned()),
            from: number("79990000001"),
            to: Party { number: Some("sip:101@pbx".to_owned()), extension: Some("101".to_owned()) },
            created_at: Some(at(1_700_000_000)),
            forwarded_at: Some(at(1_700_000_005)),
            talk_at: None,
            ended_at: Some(at(1_700_000_045)),
            answered: false,
            disconnect_reason: Some(1120),
        });
        assert_eq!(parse(EventKind::Summary, &summary().to_string()), Ok(expected));
    }

    #[test]
    fn a_recording_is_ready_once_it_is_added() {
        let payload = json!({"entry_id": "e", "recording_id": "r", "timestamp": 1_700_000_100});
        for (kind, ready) in [(EventKind::Recording, false), (EventKind::RecordAdded, true)] {
            match parse(kind, &payload.to_string()) {
                Ok(CallEvent::Recording(notice)) => {
                    assert_eq!(notice.recording_id, "r");
                    assert_eq!(notice.ready, ready);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn errors_name_the_field_and_the_expectation() {
        let long = json!({"line_number": "7".repeat(MAX_TEXT + 1)});
        for (field, value, expected) in [
            ("entry_id", Value::Null, "entry_id: missing"),
            ("call_id", json!(true), "call_id: expected a text"),
            ("call_id", json!(1.5), "call_id: expected a text"),
            ("seq", json!("3rd"), "seq: expected a whole number"),
            ("seq", json!(1.5), "seq: expected a whole number"),
            ("seq", json!(u64::MAX), "seq: expected a whole number"),
            ("seq", json!(-1), "seq: expected no negative number"),
            ("seq", json!(""), "seq: missing"),
            ("call_state", json!("Bang"), "call_state: unknown state"),
            ("location", json!("moon"), "location: unknown location"),
            ("from", json!("7999"), "from: expected an object"),
            ("to", long, "to.line_number: too long"),
        ] {
            assert_eq!(problem(EventKind::Call, call(), field, value), expected);
        }
        for (field, value, expected) in [
            ("call_direction", json!(3), "call_direction: expected 0, 1 or 2"),
            ("call_direction", json!(""), "call_direction: missing"),
            ("entry_result", json!("2"), "entry_result: expected 0 or 1"),
        ] {
            assert_eq!(problem(EventKind::Summary, summary(), field, value), expected);
        }
        for (json, expected) in [("{", "json: not valid JSON"), ("[]", "json: expected an object")] {
            let error = parse(EventKind::Call, json).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn no_control_character_gets_through() {
        for control in ['\0', '\n', '\u{7f}', '\u{85}'] {
            let value = json!({"number": format!("7{control}9")});
            assert_eq!(problem(EventKind::Call, call(), "from", value), "from.number: contains a control character");
        }
    }

    #[test]
    fn times_must_be_unix_seconds_of_this_century() {
        for bad in [0, 1, 946_684_799, 4_102_444_800, 1_700_000_000_000, i64::MAX, i64::MIN] {
            assert_eq!(
                problem(EventKind::Call, call(), "timestamp", bad.into()),
                "timestamp: expected unix seconds from 2000 to 2099"
            );
        }
        for good in [946_684_800, 4_102_444_799] {
            let mut payload = call();
            payload["timestamp"] = good.into();
            assert_eq!(leg(&payload).at, at(good));
        }
        let late = problem(EventKind::Summary, summary(), "end_time", json!("17000000000"));
        assert_eq!(late, "end_time: expected unix seconds from 2000 to 2099");
    }

    #[test]
    fn the_longest_text_is_taken_whole() {
        let mut payload = call();
        payload["from"]["number"] = "ж".repeat(MAX_TEXT).into();
        assert_eq!(leg(&payload).from, number(&"ж".repeat(MAX_TEXT)));
    }

    /// Any JSON, of the kinds a field could wrongly hold.
    fn any_value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[0-9]{1,12}".prop_map(Value::from),
        ];
        let fields = prop::sample::select(vec!["number", "extension", "line_number"]);
        prop_oneof![
            scalar.clone(),
            prop::collection::vec(scalar.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(fields.prop_map(str::to_owned), scalar, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_refused_calmly(json in any::<String>(), which in 0..4_usize) {
            prop_assert!(parse(EventKind::ALL[which], &json).is_err());
            prop_assert_eq!(EventKind::infer(&json), None);
        }

        #[test]
        fn a_surprising_field_never_leaks_into_the_error(
            which in 0..4_usize,
            field in any::<prop::sample::Index>(),
            value in any_value(),
        ) {
            let kind = EventKind::ALL[which];
            let mut payload = if kind == EventKind::Summary { summary() } else { call() };
            let names: Vec<String> = payload.as_object().unwrap().keys().cloned().collect();
            payload[field.get(&names).as_str()] = value;
            let json = payload.to_string();
            let _ = (identify(kind, &json), EventKind::infer(&json));
            if let Err(error) = parse(kind, &json) {
                let message = error.to_string();
                // "0, 1 or 2" and "2000 to 2099" are the only digits of our own.
                let digits = message.chars().filter(char::is_ascii_digit).count();
                prop_assert!(message.is_ascii() && digits <= 8, "{}", message);
            }
        }
    }
}
