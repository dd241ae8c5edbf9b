use proptest::prelude::*;

use super::*;
use crate::calls::providers::{Party, RecordingNotice};

const CLIENT: &str = "79990000001";
const LINE: &str = "74950000002";

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
}

fn party(number: &str, extension: &str) -> Party {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Party { number: some(number), extension: some(extension) }
}

/// An event of an incoming call; the tests change what they are about.
fn leg(leg: &str, seq: i64, second: i64, state: LegState, location: Location) -> LegEvent {
    LegEvent {
        call_key: "entry".to_owned(),
        leg: leg.to_owned(),
        seq,
        at: at(second),
        state,
        location,
        from: party(CLIENT, ""),
        to: party(LINE, ""),
        line: Some(LINE.to_owned()),
        disconnect_reason: None,
    }
}

/// A leg that rings an operator.
fn ring(name: &str, extension: &str, seq: i64, second: i64, state: LegState) -> LegEvent {
    LegEvent {
        to: party(&format!("sip:{extension}@pbx"), extension),
        ..leg(name, seq, second, state, Location::Abonent)
    }
}

fn ended(reason: i64, event: LegEvent) -> LegEvent {
    LegEvent { disconnect_reason: Some(reason), ..event }
}

fn answered_summary() -> Summary {
    Summary {
        call_key: "entry".to_owned(),
        direction: Direction::Incoming,
        line: Some(LINE.to_owned()),
        from: party(CLIENT, ""),
        to: party("sip:102@pbx", "102"),
        created_at: Some(at(0)),
        forwarded_at: Some(at(5)),
        talk_at: Some(at(20)),
        ended_at: Some(at(80)),
        answered: true,
        disconnect_reason: Some(1110),
    }
}

fn missed_summary() -> Summary {
    Summary {
        to: party("sip:101@pbx", "101"),
        talk_at: None,
        ended_at: Some(at(45)),
        answered: false,
        disconnect_reason: Some(1120),
        ..answered_summary()
    }
}

/// A menu, a first operator who does not pick up, and a second one who does.
fn answered_legs() -> Vec<CallEvent> {
    use LegState::{Appeared, Connected, Disconnected};
    [
        leg("menu", 1, 0, Appeared, Location::Ivr),
        leg("menu", 2, 1, Connected, Location::Ivr),
        ended(1100, leg("menu", 3, 5, Disconnected, Location::Ivr)),
        ring("first", "101", 1, 5, Appeared),
        ended(1123, ring("first", "101", 2, 15, Disconnected)),
        ring("second", "102", 1, 15, Appeared),
        ring("second", "102", 2, 21, Connected),
        ended(1111, ring("second", "102", 3, 81, Disconnected)),
    ]
    .map(CallEvent::Leg)
    .to_vec()
}

fn recording() -> CallEvent {
    CallEvent::Recording(RecordingNotice {
        call_key: "entry".to_owned(),
        leg: None,
        recording_id: "recording".to_owned(),
        at: at(90),
        ready: true,
    })
}

fn nothing_known() -> CallFacts {
    CallFacts {
        direction: Direction::Unknown,
        from: None,
        line: None,
        to: None,
        operator_extension: None,
        started_at: None,
        answered_at: None,
        ended_at: None,
        talk_seconds: None,
        wait_seconds: None,
        result: None,
        cause: None,
    }
}

fn answered_facts() -> CallFacts {
    CallFacts {
        direction: Direction::Incoming,
        from: Some(CLIENT.to_owned()),
        line: Some(LINE.to_owned()),
        to: Some("sip:102@pbx".to_owned()),
        operator_extension: Some("102".to_owned()),
        started_at: Some(at(0)),
        answered_at: Some(at(20)),
        ended_at: Some(at(80)),
        talk_seconds: Some(60),
        wait_seconds: Some(20),
        result: Some(CallResult::Answered),
        cause: Some(1110),
    }
}

#[test]
fn no_events_say_nothing() {
    assert_eq!(fold(&[]), nothing_known());
    assert_eq!(fold(&[recording()]), nothing_known());
}

#[test]
fn the_summary_alone_tells_everything() {
    assert_eq!(fold(&[CallEvent::Summary(answered_summary())]), answered_facts());
}

#[test]
fn the_summary_overrules_the_legs() {
    let mut events = answered_legs();
    events.push(CallEvent::Summary(answered_summary()));
    assert_eq!(fold(&events), answered_facts());
}

#[test]
fn legs_alone_tell_all_but_the_result() {
    let expected = CallFacts {
        answered_at: Some(at(21)),
        ended_at: Some(at(81)),
        wait_seconds: Some(21),
        result: None,
        cause: Some(1111),
        ..answered_facts()
    };
    assert_eq!(fold(&answered_legs()), expected);
}

#[test]
fn a_call_in_progress_has_no_end() {
    let conversation = fold(&answered_legs()[..7]);
    assert_eq!(conversation.ended_at, None);
    assert_eq!(conversation.talk_seconds, None);
    assert_eq!(conversation.wait_seconds, Some(21));

    // The menu and the first operator are done with it; the second is being called.
    let ringing = fold(&answered_legs()[..6]);
    assert_eq!(ringing.ended_at, None);
    assert_eq!(ringing.cause, None);
    assert_eq!(ringing.answered_at, None);
    assert_eq!(ringing.wait_seconds, None);
}

#[test]
fn a_menu_that_picks_up_has_not_answered() {
    let facts = fold(&answered_legs()[..3]);
    assert_eq!(facts.answered_at, None);
    assert_eq!(facts.operator_extension, None);
    assert_eq!(facts.ended_at, Some(at(5)));
}

#[test]
fn a_missed_call_was_waited_for_until_its_end() {
    let mut events = answered_legs()[..5].to_vec();
    events.push(CallEvent::Summary(missed_summary()));
    let expected = CallFacts {
        to: Some("sip:101@pbx".to_owned()),
        operator_extension: Some("101".to_owned()),
        answered_at: None,
        ended_at: Some(at(45)),
        talk_seconds: None,
        wait_seconds: Some(45),
        result: Some(CallResult::Missed),
        cause: Some(1120),
        ..answered_facts()
    };
    assert_eq!(fold(&events), expected);
}

#[test]
fn a_missed_call_has_no_answer_even_if_a_leg_was_connected() {
    let mut events = answered_legs();
    events.push(CallEvent::Summary(missed_summary()));
    let facts = fold(&events);
    assert_eq!(facts.answered_at, None);
    assert_eq!(facts.talk_seconds, None);
    assert_eq!(facts.result, Some(CallResult::Missed));
}

#[test]
fn an_outgoing_call_belongs_to_the_one_who_dialled() {
    let mut event = leg("out", 1, 0, LegState::Appeared, Location::Abonent);
    event.from = party("sip:101@pbx", "101");
    event.to = party(CLIENT, "");
    let facts = fold(&[CallEvent::Leg(event)]);
    assert_eq!(facts.direction, Direction::Outgoing);
    assert_eq!(facts.to.as_deref(), Some(CLIENT));
    assert_eq!(facts.operator_extension.as_deref(), Some("101"));
}

#[test]
fn a_call_between_two_extensions_is_internal() {
    let mut event = ring("inside", "102", 1, 0, LegState::Connected);
    event.from = party("", "101");
    event.line = None;
    let facts = fold(&[CallEvent::Leg(event)]);
    assert_eq!(facts.direction, Direction::Internal);
    assert_eq!(facts.from, None);
    assert_eq!(facts.operator_extension.as_deref(), Some("102"));
}

#[test]
fn a_transferred_call_stays_incoming() {
    let mut transfer = ring("transfer", "103", 1, 40, LegState::Appeared);
    transfer.from = party("sip:102@pbx", "102");
    let mut events = answered_legs();
    events.insert(0, CallEvent::Leg(transfer));
    assert_eq!(fold(&events).direction, Direction::Incoming);
    assert_eq!(fold(&events[..1]).direction, Direction::Internal);
}

#[test]
fn a_leg_without_line_or_caller_extension_has_no_direction() {
    let mut event = leg("queue", 1, 0, LegState::Appeared, Location::Queue);
    event.line = None;
    assert_eq!(fold(&[CallEvent::Leg(event)]).direction, Direction::Unknown);
}

#[test]
fn disagreeing_clocks_give_no_negative_spans() {
    let facts = fold(&[CallEvent::Summary(Summary {
        created_at: Some(at(30)),
        talk_at: Some(at(20)),
        ended_at: Some(at(10)),
        ..answered_summary()
    })]);
    assert_eq!(facts.wait_seconds, Some(0));
    assert_eq!(facts.talk_seconds, Some(0));
}

#[test]
fn a_gap_in_the_summary_is_filled_from_the_legs() {
    let mut events = answered_legs();
    events.push(CallEvent::Summary(Summary {
        direction: Direction::Unknown,
        line: None,
        from: Party::default(),
        to: Party::default(),
        created_at: None,
        forwarded_at: None,
        talk_at: None,
        ended_at: None,
        disconnect_reason: None,
        ..answered_summary()
    }));
    let from_legs = CallFacts { result: Some(CallResult::Answered), ..fold(&answered_legs()) };
    assert_eq!(fold(&events), from_legs);
}

#[test]
fn the_sequence_decides_within_a_second() {
    let mut events = answered_legs();
    // Both operators pick up in the same second; the one further in its leg loses.
    let rival = ring("another", "199", 3, 21, LegState::Connected);
    events.push(CallEvent::Leg(rival));
    assert_eq!(fold(&events).operator_extension.as_deref(), Some("102"));
}

/// A realistic call with everything the provider sends about it.
fn whole_call() -> Vec<CallEvent> {
    let mut events = answered_legs();
    events.push(CallEvent::Summary(answered_summary()));
    events.push(recording());
    events
}

#[test]
fn every_order_of_a_short_call_gives_the_same_facts() {
    fn permutations(prefix: &mut Vec<CallEvent>, rest: &[CallEvent], check: &impl Fn(&[CallEvent])) {
        if rest.is_empty() {
            check(prefix);
        }
        for picked in 0..rest.len() {
            let mut rest = rest.to_vec();
            prefix.push(rest.remove(picked));
            permutations(prefix, &rest, check);
            prefix.pop();
        }
    }
    let events = [&answered_legs()[3..], &whole_call()[8..9]].concat();
    let expected = fold(&events);
    permutations(&mut Vec::new(), &events, &|order| {
        assert_eq!(fold(order), expected);
    });
}

/// Events from a small world, so that ties and contradictions are common.
fn any_event() -> impl Strategy<Value = CallEvent> {
    let time = || 0..4_i64;
    let extension = || prop::sample::select(vec!["", "101", "102"]);
    let state =
        prop::sample::select(vec![LegState::Appeared, LegState::Connected, LegState::OnHold, LegState::Disconnected]);
    let location = prop::sample::select(vec![Location::Ivr, Location::Queue, Location::Abonent]);
    let name = prop::sample::select(vec!["a", "b"]);
    let leg = (name, time(), time(), state, location, extension(), extension(), time()).prop_map(
        |(name, seq, second, state, location, from, to, reason)| {
            CallEvent::Leg(LegEvent {
                from: party(from, from),
                to: party(to, to),
                ..ended(reason, leg(name, seq, second, state, location))
            })
        },
    );
    let summary = (time(), time(), any::<bool>(), extension()).prop_map(|(start, end, answered, extension)| {
        CallEvent::Summary(Summary {
            created_at: Some(at(start)),
            ended_at: Some(at(end)).filter(|_| end > 0),
            answered,
            to: party(extension, extension),
            ..missed_summary()
        })
    });
    prop_oneof![4 => leg, 1 => summary, 1 => Just(recording())]
}

/// A set of events in two deliveries, the second shuffled and with repeats.
fn delivered_twice(
    events: impl Strategy<Value = Vec<CallEvent>>,
) -> impl Strategy<Value = (Vec<CallEvent>, Vec<CallEvent>)> {
    events
        .prop_flat_map(|events| {
            let repeats = prop::sample::subsequence(events.clone(), 0..=events.len());
            (Just(events), repeats)
        })
        .prop_flat_map(|(events, repeats)| {
            let delivery = [events.clone(), repeats].concat();
            (Just(events), Just(delivery).prop_shuffle())
        })
}

proptest! {
    #[test]
    fn order_and_repeats_of_a_whole_call_do_not_matter(
        (_, delivery) in delivered_twice(Just(whole_call())),
    ) {
        prop_assert_eq!(fold(&delivery), answered_facts());
    }

    #[test]
    fn order_and_repeats_never_matter(
        (events, delivery) in delivered_twice(prop::collection::vec(any_event(), 0..10)),
    ) {
        prop_assert_eq!(fold(&delivery), fold(&events));
    }

    #[test]
    fn facts_never_contradict_themselves(events in prop::collection::vec(any_event(), 0..10)) {
        let facts = fold(&events);
        prop_assert!(facts.talk_seconds.is_none_or(|seconds| seconds >= 0));
        prop_assert!(facts.wait_seconds.is_none_or(|seconds| seconds >= 0));
        if facts.result == Some(CallResult::Missed) {
            prop_assert_eq!(facts.answered_at, None);
            prop_assert_eq!(facts.talk_seconds, None);
        }
        let summed_up = events.iter().any(|event| matches!(event, CallEvent::Summary(_)));
        prop_assert_eq!(facts.result.is_some(), summed_up);
    }
}
