//! What becomes of a service request: who moves it where, after how long, and what they say. A story
//! is drawn whole, and some end early: those requests stay open.

use rust_decimal::Decimal;

use crate::requests::state::Status;

/// Who makes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Desk {
    /// Talks to clients.
    Operator,
    /// Finds a master: a manager or a marketer.
    Planner,
    /// Decides about refusals.
    Manager,
    /// Goes and repairs.
    Master,
    /// Decides about what is done.
    Director,
}

/// One step of a story.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Whose it is.
    pub desk: Desk,
    /// From this state
    pub from: Status,
    /// to this one,
    pub to: Status,
    /// this many seconds after the previous step at the earliest,
    pub after: u32,
    /// having thought, talked or worked on it for so many.
    pub thinks: u32,
    /// What the move needs.
    pub with: With,
    /// What they write down besides.
    pub comment: Option<&'static str>,
}

/// What a move brings.
#[derive(Clone, Debug, PartialEq)]
pub enum With {
    /// Nothing.
    Nothing,
    /// Why.
    Reason(&'static str),
    /// Call back in so many hours.
    CallBack(u32),
    /// A visit: where, and in how many hours.
    Visit(String, u32),
    /// The master, counted within the city.
    Master(usize),
    /// To be continued in so many hours.
    Later(u32),
    /// Result and expenses, rubles.
    Money(Decimal, Decimal),
}

/// What becomes of one service request, and of which client.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    /// In order.
    pub steps: Vec<Step>,
    /// The client's name.
    pub name: &'static str,
    /// What is broken.
    pub problem: &'static str,
    /// Whether operators do not agree on who takes it, so that two may.
    pub contested: bool,
}
