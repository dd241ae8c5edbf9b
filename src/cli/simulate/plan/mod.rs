//! What will happen in a day, drawn before anything does: a pure function of the seed. Who calls
//! when, on which line, how we are told, what becomes of it, and how long people think. What is not
//! here is decided by the race of real people and a real server.

mod author;
pub mod call;
mod dice;
pub mod story;
#[cfg(test)]
mod tests;
pub mod words;

use author::Author;
use call::{Kind, PlannedCall, Postman};
use dice::{Deck, Dice};
use story::Story;

use crate::cli::demo::DemoLine;

/// Calls an hour, by the hour of the day, in parts of the sum.
const PROFILE: [u32; 24] = [2, 1, 1, 1, 1, 2, 5, 10, 25, 50, 60, 60, 50, 50, 55, 55, 55, 55, 50, 40, 25, 12, 6, 3];
/// A whole day begins when the night is over, so that its own night finds staff with little to do.
const MORNING: u32 = 6;
/// A short one begins when the telephones do.
const OPENING: u32 = 9;
/// Seconds of an hour.
const HOUR: u32 = 3600;
/// A further call is "soon" when it comes within this many seconds.
const SOON: u32 = 25 * 60;

/// Something that goes wrong all day, for which there is an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Incident {
    /// Three of four incoming calls are not answered: `MissedCallsHigh`
    MissedCalls,
    /// A third of the calls come in on numbers of no campaign: `UnknownLineCalls`
    UnknownLines,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Brief<'a> {
    /// Where chance comes from.
    pub seed: u64,
    /// Calls a day.
    pub rate: u32,
    /// Only so many hours.
    pub hours: Option<u32>,
    /// The advertised numbers.
    pub lines: &'a [DemoLine],
    /// What goes wrong.
    pub incident: Option<Incident>,
}

/// A day.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Second of the day at which it begins
    pub opens: u32,
    /// and at which no more calls come; past 24 h when the day ends after midnight.
    pub closes: u32,
    /// Codes of the cities.
    pub cities: Vec<String>,
    /// How many clients there are.
    pub clients: usize,
    /// By time.
    pub calls: Vec<PlannedCall>,
    /// Service requests that operators type in without a call of ours: by time.
    pub typed: Vec<Typed>,
}

/// A service request that an operator types in.
#[derive(Clone, Debug, PartialEq)]
pub struct Typed {
    /// Second of the day.
    pub at: u32,
    /// Which city.
    pub city: usize,
    /// Which client.
    pub client: usize,
    /// The field of work, counted in the dictionary.
    pub field: usize,
    /// What becomes of it.
    pub story: Story,
}

#[derive(Clone, Copy, Debug)]
enum Card {
    First,
    FirstMissed,
    Soon,
    Later,
    UnknownLine,
    Anonymous,
    Outgoing,
    Internal,
}

impl Plan {
    /// Draws a day. There must be lines.
    #[must_use]
    pub fn draw(brief: &Brief<'_>) -> Self {
        let mut cities: Vec<String> = Vec::new();
        for line in brief.lines {
            if !cities.contains(&line.city) {
                cities.push(line.city.clone());
            }
        }
        let (first_hour, hours) = brief.hours.map_or((MORNING, 24), |hours| (OPENING, hours));
        let plan = Self {
            opens: first_hour * HOUR,
            closes: (first_hour + hours) * HOUR,
            cities,
            clients: 0,
            calls: Vec::new(),
            typed: Vec::new(),
        };
        let mut draft = Draft {
            plan,
            dice: Dice::new(brief.seed),
            lines: brief.lines,
            incident: brief.incident,
            author: Author::default(),
            postman: Postman::default(),
        };
        draft.fill(brief.rate, first_hour, hours);
        draft.plan
    }

    /// Deliveries in all, for a sense of size.
    #[must_use]
    pub fn deliveries(&self) -> usize {
        self.calls.iter().map(|call| call.deliveries.len()).sum()
    }
}

/// A day being drawn.
struct Draft<'a> {
    plan: Plan,
    dice: Dice,
    lines: &'a [DemoLine],
    incident: Option<Incident>,
    author: Author,
    postman: Postman,
}

impl Draft<'_> {
    fn fill(&mut self, rate: u32, first_hour: u32, hours: u32) {
        let unknown_lines = if self.incident == Some(Incident::UnknownLines) { 20 } else { 2 };
        let mut cards = Deck::of([
            (18, Card::First),
            (4, Card::FirstMissed),
            (5, Card::Soon),
            (2, Card::Later),
            (unknown_lines, Card::UnknownLine),
            (1, Card::Anonymous),
            (5, Card::Outgoing),
            (3, Card::Internal),
        ]);
        // Of lost calls, most are rescued by an operator who types them in.
        let mut rescued = Deck::of([(3, true), (1, false)]);
        for at in self.times(rate, first_hour, hours) {
            let card = cards.draw(&mut self.dice);
            let rescue = matches!(card, Card::UnknownLine | Card::Anonymous) && rescued.draw(&mut self.dice);
            let call = self.call(at, card, rescue);
            self.plan.calls.push(call);
        }
        // Some write or come by: one for every fifteen calls.
        let walk_ins = rate / 15;
        for at in self.times(walk_ins, first_hour, hours) {
            let known: Vec<(usize, usize)> = self.clients_between(self.plan.opens, at);
            let known = self.dice.one_in(4).then(|| self.dice.pick_of(&known).copied()).flatten();
            let (city, client) = known.unwrap_or_else(|| (self.city(), self.new_client()));
            let typed = self.typed(at, city, client);
            self.plan.typed.push(typed);
        }
    }

    /// When calls come: as many as the rate says for these hours, busy in the day, quiet at night.
    fn times(&mut self, rate: u32, first_hour: u32, hours: u32) -> Vec<u32> {
        let played: Vec<u32> = (first_hour..first_hour + hours).collect();
        let weight = |hour: &u32| PROFILE[usize::try_from(hour % 24).unwrap_or(0)];
        let whole: u32 = PROFILE.iter().sum();
        let part: u32 = played.iter().map(weight).sum();
        let count = (u64::from(rate) * u64::from(part)).div_ceil(u64::from(whole));
        let mut times: Vec<u32> = (0..count)
            .map(|_| {
                let mut ticket = self.dice.between(0..=part.saturating_sub(1));
                let within = self.dice.between(0..=HOUR - 1);
                let hour = played.iter().find(|hour| {
                    let found = ticket < weight(hour);
                    ticket = ticket.saturating_sub(weight(hour));
                    found
                });
                hour.unwrap_or(&first_hour) * HOUR + within
            })
            .collect();
        times.sort_unstable();
        times
    }

    fn call(&mut self, at: u32, card: Card, rescue: bool) -> PlannedCall {
        let earlier = match card {
            Card::Soon => self.clients_between(at.saturating_sub(SOON), at.saturating_sub(60)),
            Card::Later | Card::Outgoing => self.clients_between(self.plan.opens, at.saturating_sub(600)),
            _ => Vec::new(),
        };
        let earlier = self.dice.pick_of(&earlier).copied();
        let kind = match card {
            Card::Soon | Card::Later if earlier.is_some() => Kind::Again,
            Card::First | Card::FirstMissed | Card::Soon | Card::Later => Kind::Client,
            Card::UnknownLine => Kind::UnknownLine,
            Card::Anonymous => Kind::Anonymous,
            Card::Outgoing => Kind::Outgoing,
            Card::Internal => Kind::Internal,
        };
        let (city, client) = earlier.unwrap_or_else(|| (self.city(), self.new_client()));
        let line = match kind {
            Kind::UnknownLine => format!("7800{}", self.dice.between(2_000_000..=7_999_999)),
            _ => self.line(city),
        };
        let answered = match card {
            Card::FirstMissed => false,
            Card::Outgoing => !self.dice.one_in(3),
            Card::Internal => !self.dice.one_in(9),
            _ if self.incident == Some(Incident::MissedCalls) => self.dice.one_in(4),
            _ => !self.dice.one_in(9),
        };
        let mut call = PlannedCall {
            at,
            kind,
            city,
            client,
            line,
            extension: self.dice.between(101..=139),
            answered,
            rings: if answered { self.dice.between(2..=40) } else { self.dice.between(10..=90) },
            talks: if answered { self.dice.between(15..=420) } else { 0 },
            events: Vec::new(),
            deliveries: Vec::new(),
            story: kind.makes_request().then(|| self.author.draw(&mut self.dice)),
            typed: rescue.then(|| self.typed(at, city, client)),
        };
        self.postman.deliver(&mut call, &mut self.dice);
        call
    }

    fn typed(&mut self, at: u32, city: usize, client: usize) -> Typed {
        let field = self.dice.pick(&[0, 1, 2, 3, 4, 5, 6, 7]);
        Typed { at, city, client, field, story: self.author.draw(&mut self.dice) }
    }

    /// City and number of those who called us in a span of time.
    fn clients_between(&self, from: u32, until: u32) -> Vec<(usize, usize)> {
        let ours = self.plan.calls.iter().filter(|call| call.kind.makes_request());
        ours.filter(|call| (from..until).contains(&call.at)).map(|call| (call.city, call.client)).collect()
    }

    fn new_client(&mut self) -> usize {
        self.plan.clients += 1;
        self.plan.clients - 1
    }

    fn city(&mut self) -> usize {
        let cities: Vec<usize> = (0..self.plan.cities.len()).collect();
        self.dice.pick_of(&cities).copied().unwrap_or(0)
    }

    /// One of a city's numbers, as the provider writes them: bare digits.
    fn line(&mut self, city: usize) -> String {
        let ours: Vec<&DemoLine> = self.lines.iter().filter(|line| line.city == self.plan.cities[city]).collect();
        self.dice.pick_of(&ours).map(|line| line.phone.trim_start_matches('+').to_owned()).unwrap_or_default()
    }
}
