use std::collections::BTreeSet;

use rust_decimal::Decimal;

use super::{
    call::{Kind, PlannedCall, What},
    story::{Desk, Story, With},
    *,
};
use crate::{
    auth::Role,
    calls::{
        facts::{self, Direction},
        providers::{CallEvent, mango},
    },
    cli::simulate::callers::payload,
    requests::state::{self, Need, Status},
};

fn lines() -> Vec<DemoLine> {
    let line = |phone: &str, city: &str| DemoLine {
        phone: phone.to_owned(),
        campaign: format!("{city}_maps"),
        city: city.to_owned(),
    };
    vec![line("+73832000101", "novosibirsk"), line("+73832000102", "novosibirsk"), line("+78432000101", "kazan")]
}

fn plan(seed: u64, rate: u32, hours: Option<u32>) -> Plan {
    Plan::draw(&Brief { seed, rate, hours, lines: &lines(), incident: None })
}

fn stories(plan: &Plan) -> impl Iterator<Item = &Story> {
    let of_call = |call: &'_ PlannedCall| call.story.is_some();
    let called = plan.calls.iter().filter(move |call| of_call(call)).filter_map(|call| call.story.as_ref());
    called
        .chain(plan.calls.iter().filter_map(|call| Some(&call.typed.as_ref()?.story)))
        .chain(plan.typed.iter().map(|typed| &typed.story))
}

#[test]
fn the_same_seed_is_the_same_day_and_another_is_not() {
    assert_eq!(plan(1, 360, None), plan(1, 360, None));
    assert_ne!(plan(1, 360, None), plan(2, 360, None));
}

#[test]
fn an_incident_crosses_its_alert_and_a_day_without_stays_far_below() {
    // In a hundred incoming calls.
    let shares = |incident| {
        let day = Plan::draw(&Brief { seed: 1, rate: 360, hours: None, lines: &lines(), incident });
        let incoming = day.calls.iter().filter(|call| call.kind.direction() == Direction::Incoming);
        let of = |is: fn(&PlannedCall) -> bool| {
            100 * incoming.clone().filter(|call| is(call)).count() / incoming.clone().count()
        };
        (of(|call| !call.answered), of(|call| call.kind == Kind::UnknownLine))
    };
    let (missed, unknown) = shares(None);
    assert!(missed < 30 && unknown < 10, "{missed} {unknown}");
    let (missed, unknown) = shares(Some(Incident::MissedCalls));
    assert!(missed > 60 && unknown < 10, "{missed} {unknown}");
    let (missed, unknown) = shares(Some(Incident::UnknownLines));
    assert!(missed < 30 && unknown > 25, "{missed} {unknown}");
}

#[test]
fn a_day_has_as_many_calls_as_it_should_within_its_hours() {
    for seed in 0..20 {
        let day = plan(seed, 360, None);
        assert_eq!(day.calls.len(), 360);
        assert!(day.calls.is_sorted_by_key(|call| call.at) && day.typed.is_sorted_by_key(|typed| typed.at));
        assert!(day.calls.iter().all(|call| (day.opens..day.closes).contains(&call.at)));
        let busy = day.calls.iter().filter(|call| (9 * HOUR..20 * HOUR).contains(&call.at)).count();
        assert!(busy > 250, "{busy}");
    }
    let hour = plan(1, 2_000, Some(1));
    assert!(hour.calls.len() > 100 && hour.closes - hour.opens == HOUR);
    assert!(!plan(1, 1, None).calls.is_empty());
}

#[test]
fn every_peculiarity_happens() {
    for day in [plan(1, 360, None), plan(7, 360, None), plan(1, 2_000, Some(1))] {
        let kinds: BTreeSet<Kind> = day.calls.iter().map(|call| call.kind).collect();
        assert_eq!(kinds.len(), 6, "{kinds:?}");
        assert!(day.calls.iter().any(|call| call.kind == Kind::Client && !call.answered));
        let repeated = |call: &PlannedCall| call.deliveries.iter().filter(|d| !d.forged).count() > call.events.len();
        assert!(day.calls.iter().any(repeated));
        assert!(day.calls.iter().any(|call| call.deliveries.iter().any(|delivery| delivery.forged)));
        let first = |call: &PlannedCall| call.deliveries.first().map(|delivery| call.events[delivery.event].what);
        assert!(day.calls.iter().any(|call| first(call) == Some(What::Summary)));
        let late = |call: &PlannedCall| call.deliveries.iter().any(|delivery| delivery.at > call.length() + 300);
        assert!(day.calls.iter().any(late));
        assert!(day.calls.iter().any(|call| call.events.iter().any(|event| event.what == What::RecordAdded)));
        assert!(day.calls.iter().any(|call| call.typed.is_some()) && !day.typed.is_empty());
        let soon = |call: &&PlannedCall| {
            let joins = |other: &&PlannedCall| {
                other.client == call.client
                    && other.kind.makes_request()
                    && other.at < call.at
                    && call.at - other.at <= SOON
            };
            call.kind == Kind::Again && day.calls.iter().any(|other| joins(&other))
        };
        assert!(day.calls.iter().filter(soon).count() > 5);
        let moves: BTreeSet<(Status, Status)> =
            stories(&day).flat_map(|story| &story.steps).map(|step| (step.from, step.to)).collect();
        for wanted in [
            (Status::New, Status::Callback),
            (Status::NoAnswer, Status::Waiting),
            (Status::New, Status::NotOrder),
            (Status::Refused, Status::New),
            (Status::Offered, Status::Waiting),
            (Status::Done, Status::InProgress),
            (Status::InProgress, Status::Deferred),
            (Status::Deferred, Status::InProgress),
        ] {
            assert!(moves.contains(&wanted), "{wanted:?}");
        }
        assert!(stories(&day).any(|story| story.contested));
        let unfinished = |story: &&Story| story.steps.last().is_none_or(|step| !step.to.is_finished());
        let (all, open) = (stories(&day).count(), stories(&day).filter(unfinished).count());
        assert!(open > 0 && open * 5 < all, "{open} of {all}");
    }
}

#[test]
fn every_story_keeps_to_the_state_machine() {
    for seed in 0..10 {
        let day = plan(seed, 360, None);
        for story in stories(&day) {
            let mut at = Status::New;
            for step in &story.steps {
                assert_eq!(step.from, at);
                let roles: &[Role] = match step.desk {
                    Desk::Operator => &[Role::Operator],
                    Desk::Planner => &[Role::Manager, Role::Marketer],
                    Desk::Manager => &[Role::Manager],
                    Desk::Master => &[Role::Master],
                    Desk::Director => &[Role::Director],
                };
                for role in roles {
                    let rule = state::decide(step.from, step.to, *role).unwrap();
                    let brings: &[Need] = match &step.with {
                        With::Nothing => &[],
                        With::Reason(_) => &[Need::Reason],
                        With::CallBack(_) => &[Need::CallbackAt],
                        With::Visit(..) => &[Need::Address, Need::MeetingAt],
                        With::Master(_) => &[Need::Master],
                        With::Later(_) => &[Need::ResumeAt],
                        With::Money(..) => &[Need::ResultAndExpenses],
                    };
                    assert_eq!(rule.needs, brings, "{step:?}");
                }
                if let With::Money(result, expenses) = step.with {
                    assert!(Decimal::ZERO <= expenses && expenses <= result && result.scale() <= 2);
                }
                at = step.to;
            }
        }
    }
}

fn read(call: &PlannedCall, event: usize) -> CallEvent {
    let json = payload(call, event, "sim-1", "79130000001", 1_700_000_000).to_string();
    mango::parse(call.events[event].what.kind(), &json).unwrap()
}

#[test]
fn the_server_understands_every_call_and_decides_by_the_first_telling_event() {
    let day = plan(3, 2_000, None);
    for call in &day.calls {
        let signed: Vec<usize> = call.deliveries.iter().filter(|d| !d.forged).map(|d| d.event).collect();
        let told: Vec<CallEvent> = signed.iter().map(|event| read(call, *event)).collect();
        let facts = facts::fold(&told);
        assert_eq!((facts.direction, facts.result), (call.kind.direction(), Some(call.result())), "{call:?}");
        let wait = facts.wait_seconds.unwrap();
        assert_eq!(wait, i64::from(call.rings));
        let direction = call.kind.direction();
        for known in 1..=told.len() {
            let facts = facts::fold(&told[..known]);
            let telling = signed[..known].iter().any(|event| call.events[*event].what.tells_direction());
            let expected = if telling { direction } else { Direction::Unknown };
            assert_eq!(facts.direction, expected, "{call:?}");
            if telling && direction == Direction::Incoming {
                assert_eq!(facts.line.as_deref(), Some(call.line.as_str()));
                let from = if call.kind == Kind::Anonymous { "anonymous" } else { "79130000001" };
                assert_eq!(facts.from.as_deref(), Some(from));
            }
        }
    }
}
