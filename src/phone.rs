//! Phone numbers: whatever people and PBXes write, as E.164.

use phonenumber::{Mode, country};

/// Digits of an E.164 number, country code included; the schema has the same bounds.
const MIN_DIGITS: usize = 7;
const MAX_DIGITS: usize = 15;

/// The E.164 form of `text`, read as dialled in `region` (ISO 3166-1 alpha-2); `None` when it is no
/// possible number: anonymous callers, extensions, short codes.
#[must_use]
pub fn normalise(text: &str, region: &str) -> Option<String> {
    let region: Option<country::Id> = region.parse().ok();
    let text = text.trim();
    let e164 = |text: &str| {
        let number = phonenumber::parse(region, text).ok()?;
        let text = phonenumber::is_valid(&number).then(|| number.format().mode(Mode::E164).to_string())?;
        // The library knows special numbers that E.164 has no room for, and the database refuses them.
        (MIN_DIGITS..=MAX_DIGITS).contains(&(text.len() - 1)).then_some(text)
    };
    // PBXes send international numbers as bare digits: 79130000001. Dialled nationally it would be
    // no number, so the reading with a plus cannot shadow a national one.
    let bare_digits = text.len() > 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    e164(text).or_else(|| if bare_digits { e164(&format!("+{text}")) } else { None })
}

/// As [`normalise`], for a line of ours, which we may advertise before the numbering plan that the
/// library knows has it: 7 to 15 digits are then taken as they stand, with a plus.
#[must_use]
pub fn normalise_line(text: &str, region: &str) -> Option<String> {
    let digits = text.trim().trim_start_matches('+');
    let plausible = (MIN_DIGITS..=MAX_DIGITS).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0');
    normalise(text, region).or_else(|| plausible.then(|| format!("+{digits}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_usual_forms_are_one_number() {
        for form in
            ["+79130000001", "79130000001", "89130000001", "8 (913) 000-00-01", "+7 913 000 00 01", "9130000001"]
        {
            assert_eq!(normalise(form, "RU").as_deref(), Some("+79130000001"), "{form}");
        }
        assert_eq!(normalise("+49 30 123456", "RU").as_deref(), Some("+4930123456"));
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in
            ["", "anonymous", "unavailable", "101", "112", "sip:user@pbx", "+7", "00000000000", "+799999999999999999"]
        {
            assert_eq!(normalise(text, "RU"), None, "{text}");
        }
    }

    #[test]
    fn a_line_may_be_newer_than_the_numbering_plan() {
        assert_eq!(normalise("78430000101", "RU"), None);
        assert_eq!(normalise_line("78430000101", "RU").as_deref(), Some("+78430000101"));
        assert_eq!(normalise_line("8 (495) 000-01-01", "RU").as_deref(), Some("+74950000101"));
        assert_eq!(normalise_line("queue-7", "RU"), None);
    }

    proptest! {
        #[test]
        fn what_is_accepted_fits_the_schema(code in 1_u32..1000, digits in "[0-9]{3,18}") {
            let text = format!("+{code}{digits}");
            for e164 in normalise(&text, "RU").into_iter().chain(normalise_line(&text, "RU")) {
                let digits = e164.strip_prefix('+').unwrap();
                prop_assert!((7..=15).contains(&digits.len()) && !digits.starts_with('0'), "{e164}");
            }
        }

        #[test]
        fn any_text_is_a_valid_number_or_none(text: String) {
            if let Some(e164) = normalise(&text, "RU") {
                prop_assert!(e164.len() <= 16 && e164.starts_with('+'));
                prop_assert_eq!(normalise(&e164, "RU"), Some(e164));
            }
        }
    }
}
