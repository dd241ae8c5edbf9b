//! One planned call: what happens in it, and in which order and how often the provider tells us.

use super::{
    Typed,
    dice::{Deck, Dice},
    story::Story,
};
use crate::calls::{
    facts::{CallResult, Direction},
    providers::mango::EventKind,
};

/// What kind of call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A client, for the first time today.
    Client,
    /// A client who called before today.
    Again,
    /// Somebody on a line that we do not advertise.
    UnknownLine,
    /// Somebody who hides their number.
    Anonymous,
    /// We call a client.
    Outgoing,
    /// A colleague.
    Internal,
}

impl Kind {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "first call of a client",
            Self::Again => "repeated call of a client",
            Self::UnknownLine => "on an unknown line",
            Self::Anonymous => "anonymous",
            Self::Outgoing => "outgoing",
            Self::Internal => "internal",
        }
    }

    /// As the server should see it.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match self {
            Self::Client | Self::Again | Self::UnknownLine | Self::Anonymous => Direction::Incoming,
            Self::Outgoing => Direction::Outgoing,
            Self::Internal => Direction::Internal,
        }
    }

    /// Whether the call joins or makes a service request.
    #[must_use]
    pub const fn makes_request(self) -> bool {
        matches!(self, Self::Client | Self::Again)
    }
}

/// A call.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedCall {
    /// Second of the day.
    pub at: u32,
    /// What kind.
    pub kind: Kind,
    /// Which city, by position in the plan.
    pub city: usize,
    /// Which client, by number; their phone is drawn from the run.
    pub client: usize,
    /// Our number, as the provider writes it.
    pub line: String,
    /// The employee's extension.
    pub extension: u32,
    /// Whether somebody picked up.
    pub answered: bool,
    /// Seconds until the answer, or until they gave up.
    pub rings: u32,
    /// Seconds of conversation.
    pub talks: u32,
    /// What happens.
    pub events: Vec<PlannedEvent>,
    /// How we are told.
    pub deliveries: Vec<Delivery>,
    /// What becomes of the service request, if this call makes one.
    pub story: Option<Story>,
    /// The service request that an operator types in for this call, if it is lost otherwise.
    pub typed: Option<Typed>,
}

/// Something that the provider tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedEvent {
    /// Seconds into the call.
    pub at: u32,
    /// What.
    pub what: What,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A leg appeared, connected or disconnected.
    Leg { leg: Leg, seq: u32, state: &'static str },
    /// The call is over.
    Summary,
    /// A recording was begun.
    RecordingStarted,
    /// A recording is stored.
    RecordAdded,
}

/// Where a leg rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// The menu.
    Menu,
    /// The queue.
    Queue,
    /// A person.
    Person,
}

impl What {
    /// The kind, which is part of the path.
    #[must_use]
    pub const fn kind(self) -> EventKind {
        match self {
            Self::Leg { .. } => EventKind::Call,
            Self::Summary => EventKind::Summary,
            Self::RecordingStarted => EventKind::Recording,
            Self::RecordAdded => EventKind::RecordAdded,
        }
    }

    /// Whether the server learns from it who called whom.
    #[must_use]
    pub const fn tells_direction(self) -> bool {
        matches!(self, Self::Leg { .. } | Self::Summary)
    }
}

/// One delivery of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Seconds after the call began.
    pub at: u32,
    /// Which event.
    pub event: usize,
    /// Not signed by the provider: to be refused.
    pub forged: bool,
}

#[derive(Clone, Copy, Debug)]
enum Post {
    InOrder,
    Mixed,
    SummaryFirst,
    SummaryLate,
}

#[derive(Clone, Copy, Debug)]
enum Copies {
    One,
    Two,
    Three,
    AfterForgery,
}

/// Draws how events come to us, in fixed proportions.
#[derive(Debug)]
pub struct Postman {
    orders: Deck<Post>,
    copies: Deck<Copies>,
    menus: Deck<bool>,
    recorded: Deck<bool>,
}

impl Default for Postman {
    fn default() -> Self {
        Self {
            orders: Deck::of([(14, Post::InOrder), (2, Post::Mixed), (2, Post::SummaryFirst), (2, Post::SummaryLate)]),
            copies: Deck::of([(36, Copies::One), (3, Copies::Two), (1, Copies::Three), (1, Copies::AfterForgery)]),
            menus: Deck::of([(4, false), (1, true)]),
            recorded: Deck::of([(1, false), (1, true)]),
        }
    }
}

impl PlannedCall {
    /// The result that the server should see.
    #[must_use]
    pub const fn result(&self) -> CallResult {
        if self.answered { CallResult::Answered } else { CallResult::Missed }
    }

    /// Seconds from the beginning to the end.
    #[must_use]
    pub const fn length(&self) -> u32 {
        self.rings + self.talks
    }
}

impl Postman {
    /// Fills in the events of a call and their deliveries.
    pub fn deliver(&mut self, call: &mut PlannedCall, dice: &mut Dice) {
        call.events = self.events(call, dice);
        call.deliveries = self.deliveries(&call.events, dice);
    }

    fn events(&mut self, call: &PlannedCall, dice: &mut Dice) -> Vec<PlannedEvent> {
        let mut events = Vec::new();
        let mut add = |at, what| events.push(PlannedEvent { at, what });
        let leg = |leg, seq, state| What::Leg { leg, seq, state };
        let outside = call.kind.direction() == Direction::Incoming;
        if outside && self.menus.draw(dice) {
            add(0, leg(Leg::Menu, 1, "Appeared"));
            add(0, leg(Leg::Menu, 2, "Connected"));
            add(call.rings.min(2), leg(Leg::Menu, 3, "Disconnected"));
        }
        let place = if outside && !call.answered { Leg::Queue } else { Leg::Person };
        add(0, leg(place, 1, "Appeared"));
        if call.answered {
            add(call.rings, leg(place, 2, "Connected"));
        }
        let recorded = call.answered && self.recorded.draw(dice);
        if recorded {
            add(call.rings, What::RecordingStarted);
        }
        add(call.length(), leg(place, 3, "Disconnected"));
        add(call.length(), What::Summary);
        if recorded {
            add(call.length() + dice.between(2..=30), What::RecordAdded);
        }
        events
    }

    fn deliveries(&mut self, events: &[PlannedEvent], dice: &mut Dice) -> Vec<Delivery> {
        let order = self.orders.draw(dice);
        let over = events.iter().map(|event| event.at).max().unwrap_or(0);
        let mut deliveries = Vec::new();
        for (index, event) in events.iter().enumerate() {
            let at = match order {
                Post::SummaryFirst if event.what != What::Summary => over + dice.between(5..=300),
                Post::SummaryLate if event.what == What::Summary => over + dice.between(300..=1800),
                Post::Mixed => event.at + dice.between(0..=600),
                _ => event.at + dice.between(0..=2),
            };
            let mut add = |at, forged| deliveries.push(Delivery { at, event: index, forged });
            match self.copies.draw(dice) {
                Copies::One => {}
                Copies::Two => add(at + dice.between(3..=600), false),
                Copies::Three => {
                    add(at + dice.between(3..=30), false);
                    add(at + dice.between(30..=600), false);
                }
                Copies::AfterForgery => add(at.saturating_sub(1), true),
            }
            add(at, false);
        }
        deliveries.sort_by_key(|delivery| (delivery.at, !delivery.forged));
        deliveries
    }
}
