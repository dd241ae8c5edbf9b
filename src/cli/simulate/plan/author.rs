//! Draws the stories of service requests: how the first talk goes, who is sent, how it ends.

use std::ops::RangeInclusive;

use rust_decimal::Decimal;

use super::{
    dice::{Deck, Dice},
    story::{Desk, Step, Story, With},
    words,
};
use crate::requests::state::Status;

#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    DoneAfterPause,
    DoneFromPause,
    DoneTwice,
    NotOrder,
    Refused,
    RefusedThenDone,
    RefusedByPlanner,
    RefusedAtDoor,
    RefusedAtWork,
    Open,
}

#[derive(Clone, Copy, Debug)]
enum Intake {
    AtOnce,
    Callback,
    CallbackTwice,
    NoAnswer,
    NoAnswerTwice,
    NoAnswerThenCallback,
    CallbackFromWaiting,
}

#[derive(Clone, Copy, Debug)]
enum Offer {
    Accepted,
    Declined,
    GivenBack,
}

const MINUTE: u32 = 60;
const HOUR: u32 = 3600;

/// Draws stories, in fixed proportions.
#[derive(Debug)]
pub struct Author {
    fates: Deck<Fate>,
    intakes: Deck<Intake>,
    offers: Deck<Offer>,
    contested: Deck<bool>,
}

impl Default for Author {
    fn default() -> Self {
        Self {
            fates: Deck::of([
                (21, Fate::Done),
                (3, Fate::DoneAfterPause),
                (1, Fate::DoneFromPause),
                (1, Fate::DoneTwice),
                (3, Fate::NotOrder),
                (3, Fate::Refused),
                (1, Fate::RefusedThenDone),
                (1, Fate::RefusedByPlanner),
                (1, Fate::RefusedAtDoor),
                (1, Fate::RefusedAtWork),
                (4, Fate::Open),
            ]),
            intakes: Deck::of([
                (20, Intake::AtOnce),
                (4, Intake::Callback),
                (1, Intake::CallbackTwice),
                (4, Intake::NoAnswer),
                (1, Intake::NoAnswerTwice),
                (1, Intake::NoAnswerThenCallback),
                (1, Intake::CallbackFromWaiting),
            ]),
            offers: Deck::of([(12, Offer::Accepted), (2, Offer::Declined), (1, Offer::GivenBack)]),
            contested: Deck::of([(12, false), (1, true)]),
        }
    }
}

impl Author {
    /// The next story.
    pub fn draw(&mut self, dice: &mut Dice) -> Story {
        let fate = self.fates.draw(dice);
        let intake = self.intakes.draw(dice);
        let mut draft = Draft { dice, offers: &mut self.offers, steps: Vec::new(), at: Status::New };
        match fate {
            Fate::NotOrder => {
                draft.talk_before(intake);
                draft.operator(Status::NotOrder, With::Nothing);
            }
            Fate::Refused => {
                draft.talk_before(intake);
                draft.operator(Status::Refused, With::Nothing);
            }
            Fate::RefusedThenDone => {
                draft.operator(Status::Refused, With::Nothing);
                let why = draft.dice.pick(&words::SECOND_THOUGHTS);
                draft.step(Desk::Manager, Status::New, (10 * MINUTE..=HOUR, 60..=300), With::Reason(why));
                draft.agree(Intake::AtOnce);
                draft.send();
                draft.finish();
            }
            Fate::RefusedByPlanner => {
                draft.agree(intake);
                draft.step(Desk::Planner, Status::Refused, (10 * MINUTE..=HOUR, 60..=300), With::Nothing);
            }
            Fate::RefusedAtDoor => {
                draft.agree(intake);
                draft.send();
                draft.master(Status::Refused, 15 * MINUTE..=40 * MINUTE, With::Nothing);
            }
            Fate::Done | Fate::DoneTwice | Fate::DoneAfterPause | Fate::DoneFromPause | Fate::RefusedAtWork => {
                draft.agree(intake);
                draft.send();
                draft.work(fate);
            }
            Fate::Open => {
                draft.agree(intake);
                draft.send();
                draft.finish();
                draft.break_off();
            }
        }
        let steps = draft.steps;
        Story {
            steps,
            name: dice.pick(&words::NAMES),
            problem: dice.pick(&words::PROBLEMS),
            contested: self.contested.draw(dice),
        }
    }
}

/// A story being written.
struct Draft<'a> {
    dice: &'a mut Dice,
    offers: &'a mut Deck<Offer>,
    steps: Vec<Step>,
    at: Status,
}

impl Draft<'_> {
    fn step(
        &mut self,
        desk: Desk,
        to: Status,
        (after, thinks): (RangeInclusive<u32>, RangeInclusive<u32>),
        with: With,
    ) {
        let comment = self.dice.one_in(6).then(|| self.dice.pick(&words::COMMENTS));
        let (after, thinks) = (self.dice.between(after), self.dice.between(thinks));
        self.steps.push(Step { desk, from: self.at, to, after, thinks, with, comment });
        self.at = to;
    }

    /// An operator's step: at once from `new`, else when it is time to call again.
    fn operator(&mut self, to: Status, with: With) {
        let after = match self.at {
            Status::New => 0..=90,
            Status::Callback => 20 * MINUTE..=90 * MINUTE,
            _ => 15 * MINUTE..=45 * MINUTE,
        };
        self.step(Desk::Operator, to, (after, 45..=240), with);
    }

    fn master(&mut self, to: Status, after: RangeInclusive<u32>, with: With) {
        self.step(Desk::Master, to, (after, 10..=90), with);
    }

    fn call_back(&mut self) {
        let hours = self.dice.between(1..=3);
        self.operator(Status::Callback, With::CallBack(hours));
    }

    /// What comes before the client says yes or no.
    fn talk_before(&mut self, intake: Intake) {
        match intake {
            Intake::AtOnce | Intake::CallbackFromWaiting => {}
            Intake::Callback => self.call_back(),
            Intake::CallbackTwice => {
                self.call_back();
                self.call_back();
            }
            Intake::NoAnswer => self.operator(Status::NoAnswer, With::Nothing),
            Intake::NoAnswerTwice => {
                self.operator(Status::NoAnswer, With::Nothing);
                self.operator(Status::NoAnswer, With::Nothing);
            }
            Intake::NoAnswerThenCallback => {
                self.operator(Status::NoAnswer, With::Nothing);
                self.call_back();
            }
        }
    }

    /// Up to an agreed visit.
    fn agree(&mut self, intake: Intake) {
        self.talk_before(intake);
        self.visit();
        if matches!(intake, Intake::CallbackFromWaiting) {
            self.step(Desk::Planner, Status::Callback, (5 * MINUTE..=30 * MINUTE, 30..=120), With::CallBack(1));
            self.visit();
        }
    }

    fn visit(&mut self) {
        let (street, house, flat) =
            (self.dice.pick(&words::STREETS), self.dice.between(1..=120), self.dice.between(1..=200));
        let hours = self.dice.between(2..=48);
        self.operator(Status::Waiting, With::Visit(format!("{street}, {house}, кв. {flat}"), hours));
    }

    /// Up to a master who is on the way.
    fn send(&mut self) {
        self.offer();
        match self.offers.draw(self.dice) {
            Offer::Accepted => self.master(Status::Accepted, 2 * MINUTE..=15 * MINUTE, With::Nothing),
            Offer::Declined => {
                self.master(Status::Waiting, 2 * MINUTE..=15 * MINUTE, With::Nothing);
                self.offer();
                self.master(Status::Accepted, 2 * MINUTE..=15 * MINUTE, With::Nothing);
            }
            Offer::GivenBack => {
                self.master(Status::Accepted, 2 * MINUTE..=15 * MINUTE, With::Nothing);
                self.master(Status::Waiting, 10 * MINUTE..=30 * MINUTE, With::Nothing);
                self.offer();
                self.master(Status::Accepted, 2 * MINUTE..=15 * MINUTE, With::Nothing);
            }
        }
        self.master(Status::EnRoute, 10 * MINUTE..=HOUR, With::Nothing);
    }

    fn offer(&mut self) {
        let master = With::Master(self.dice.pick(&[0, 1, 2, 3, 4, 5]));
        self.step(Desk::Planner, Status::Offered, (5 * MINUTE..=25 * MINUTE, 20..=120), master);
    }

    /// From the way to the end.
    fn work(&mut self, fate: Fate) {
        self.master(Status::InProgress, 15 * MINUTE..=45 * MINUTE, With::Nothing);
        match fate {
            Fate::RefusedAtWork => self.master(Status::Refused, 10 * MINUTE..=40 * MINUTE, With::Nothing),
            Fate::DoneAfterPause => {
                self.defer();
                self.master(Status::InProgress, HOUR..=3 * HOUR, With::Nothing);
                self.done();
            }
            Fate::DoneFromPause => {
                self.defer();
                self.done();
            }
            Fate::DoneTwice => {
                self.done();
                let why = self.dice.pick(&words::COMPLAINTS);
                let hurry = (15 * MINUTE..=HOUR, 60..=300);
                self.step(Desk::Director, Status::InProgress, hurry, With::Reason(why));
                self.done();
            }
            _ => self.done(),
        }
    }

    fn finish(&mut self) {
        self.work(Fate::Done);
    }

    fn defer(&mut self) {
        let hours = self.dice.between(1..=24);
        self.master(Status::Deferred, 20 * MINUTE..=HOUR, With::Later(hours));
    }

    fn done(&mut self) {
        // Round sums mostly; with odd kopecks the master's half is a half kopeck, which is rounded.
        let hundreds = self.dice.between(8..=250);
        let result =
            if self.dice.one_in(4) { hundreds * 10_000 + self.dice.between(1..=9_999) } else { hundreds * 10_000 };
        let expenses = match self.dice.between(1..=3) {
            1 => 0,
            2 => self.dice.between(1..=result / 30_000) * 10_000,
            _ => self.dice.between(1..=result / 3),
        };
        let money = With::Money(Decimal::new(result.into(), 2), Decimal::new(expenses.into(), 2));
        self.master(Status::Done, 30 * MINUTE..=2 * HOUR, money);
    }

    /// The day ends before the story does.
    fn break_off(&mut self) {
        let most = u32::try_from(self.steps.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let kept = self.dice.between(0..=most);
        self.steps.truncate(usize::try_from(kept).unwrap_or(0));
    }
}
