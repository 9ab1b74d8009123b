//! When a schedule fires: a cron expression, read in a time zone. Pure: the caller says what time it is.

use chrono::{DateTime, Timelike, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};

/// Why an expression and a time zone make no schedule.
#[derive(Debug, thiserror::Error)]
pub enum CalendarError {
    /// Not a cron expression of five fields.
    #[error("`{expression}` is no cron expression of five fields: {source}")]
    Expression {
        /// As it was given.
        expression: String,
        /// What is wrong with it.
        source: croner::errors::CronError,
    },
    /// No time zone of the IANA database has this name.
    #[error("there is no time zone `{0}`")]
    TimeZone(String),
    /// The expression names a day that never comes, e.g. the 30th of February.
    #[error("`{0}` never fires")]
    NeverFires(String),
}

/// The moments of a cron expression in a time zone, to the minute.
///
/// Five fields: minute, hour, day of the month, month, day of the week; where both days are given, either will do. Where
/// clocks go forward, a time of the hour that is skipped comes when the clock has moved on; where they go back, a time of
/// the hour that comes twice counts the first time only. That is so for times that the expression names, one or several
/// (`0,30 2,14 * * *`); one that says how often (`*/15 * * * *`, `0 1-5 * * *`) goes by the hours that there are.
#[derive(Clone, Debug)]
pub struct Calendar {
    /// One for each time of day that the expression names: so each counts as a fixed time.
    crons: Vec<Cron>,
    zone: Tz,
}

impl Calendar {
    /// Reads an expression such as `30 2 * * *` and the name of a time zone such as `Europe/Brussels`.
    ///
    /// # Errors
    /// See [`CalendarError`].
    pub fn new(expression: &str, time_zone: &str) -> Result<Self, CalendarError> {
        let zone = time_zone
            .parse()
            .map_err(|_| CalendarError::TimeZone(time_zone.to_owned()))?;
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let parse = |text: &str| {
            parser.parse(text).map_err(|source| CalendarError::Expression {
                expression: expression.to_owned(),
                source,
            })
        };
        // As a whole first: its mistakes are told in its own words.
        let whole = parse(expression)?;
        let crons = match times(expression) {
            Some(each) => each.iter().map(|time| parse(time)).collect::<Result<_, _>>()?,
            None => vec![whole],
        };
        let calendar = Self { crons, zone };
        // What fires at all does so within the 400 years after which the calendar repeats, whenever one begins to look.
        match calendar.next_after(DateTime::UNIX_EPOCH) {
            Some(_) => Ok(calendar),
            None => Err(CalendarError::NeverFires(expression.to_owned())),
        }
    }

    /// The first moment after another.
    #[must_use]
    pub fn next_after(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // In whole seconds: the fraction of one must not make a moment look passed.
        let whole = moment.with_nanosecond(0)?;
        let local = whole.with_timezone(&self.zone);
        let next = self
            .crons
            .iter()
            .filter_map(|cron| cron.find_next_occurrence(&local, false).ok());
        next.min().map(|next| next.with_timezone(&Utc))
    }

    /// The last moment that is not after `now`, given `due`, one that is not after it either: `due` itself, unless others
    /// have passed since. Takes as long for a pause of a year as for one of an hour.
    #[must_use]
    pub fn latest(&self, due: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
        let passed_after = |moment| self.next_after(moment).filter(|next| *next <= now);
        let Some(mut latest) = passed_after(due) else {
            return due;
        };
        // Between the two moments, by halves: after `latest` comes another that has passed, after `bound` none.
        let mut bound = now;
        while let Some(next) = passed_after(latest) {
            let middle = latest + (bound - latest) / 2;
            match passed_after(middle) {
                Some(later) => latest = later,
                None => {
                    bound = middle;
                    latest = next;
                }
            }
        }
        latest
    }
}

/// An expression for each time of day, if the expression names several: `0 2,14 * * *`.
fn times(expression: &str) -> Option<Vec<String>> {
    let (minutes, rest) = expression.trim().split_once(char::is_whitespace)?;
    let (hours, days) = rest.trim_start().split_once(char::is_whitespace)?;
    let named = |field: &str| field.bytes().all(|byte| byte.is_ascii_digit() || byte == b',');
    if !(named(minutes) && named(hours) && (minutes.contains(',') || hours.contains(','))) {
        return None;
    }
    let each = minutes.split(',').flat_map(|minute| {
        hours
            .split(',')
            .map(move |hour| format!("{minute} {hour} {days}"))
    });
    Some(each.collect())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn brussels(expression: &str) -> Calendar {
        Calendar::new(expression, "Europe/Brussels").unwrap()
    }

    /// The moments after `from` and before `to`.
    fn moments(calendar: &Calendar, from: &str, to: &str) -> Vec<DateTime<Utc>> {
        std::iter::successors(calendar.next_after(at(from)), |last| calendar.next_after(*last))
            .take_while(|moment| *moment < at(to))
            .collect()
    }

    #[test]
    fn what_makes_no_schedule_is_refused_with_its_reason() {
        for expression in [
            "",
            "nonsense",
            "* * * *",
            "60 * * * *",
            "0 24 * * *",
            "0 0 * * * *",
            "0 0 1 1 * * 2027",
            "0 0 32 * *",
            "0 0 0 * *",
        ] {
            let refused = Calendar::new(expression, "UTC");
            assert!(
                matches!(refused, Err(CalendarError::Expression { .. })),
                "{expression}: {refused:?}"
            );
        }
        for zone in ["", "Europe/Atlantis", "+02:00"] {
            let refused = Calendar::new("0 2 * * *", zone);
            assert!(matches!(refused, Err(CalendarError::TimeZone(_))), "{zone}");
        }
        for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
            let refused = Calendar::new(never, "UTC");
            assert!(matches!(refused, Err(CalendarError::NeverFires(_))), "{never}");
        }
        assert!(Calendar::new("0 0 29 2 *", "UTC").is_ok(), "leap days come");
    }

    #[test]
    fn a_moment_is_local_to_its_time_zone() {
        let winter = brussels("30 2 * * *").next_after(at("2027-01-10T00:00:00Z"));
        assert_eq!(winter, Some(at("2027-01-10T01:30:00Z")));
        let summer = brussels("30 2 * * *").next_after(at("2027-07-10T00:00:00Z"));
        assert_eq!(summer, Some(at("2027-07-10T00:30:00Z")));
        let kathmandu = Calendar::new("0 12 * * *", "Asia/Kathmandu").unwrap();
        assert_eq!(
            kathmandu.next_after(at("2027-01-10T00:00:00Z")),
            Some(at("2027-01-10T06:15:00Z"))
        );
    }

    #[test]
    fn the_next_moment_is_never_the_one_that_was_asked_about() {
        let calendar = brussels("30 2 * * *");
        let moment = at("2027-01-10T01:30:00Z");
        assert_eq!(
            calendar.next_after(moment - TimeDelta::microseconds(1)),
            Some(moment)
        );
        for past in [
            TimeDelta::zero(),
            TimeDelta::microseconds(1),
            TimeDelta::milliseconds(999),
        ] {
            assert_eq!(
                calendar.next_after(moment + past),
                Some(at("2027-01-11T01:30:00Z")),
                "{past}"
            );
        }
    }

    /// On 28 March 2027 Brussels goes from 02:00 (+01:00) to 03:00 (+02:00), at 01:00 UTC.
    #[test]
    fn in_spring_a_time_that_is_skipped_comes_once_when_the_clock_has_moved_on() {
        let night = ("2027-03-27T12:00:00Z", "2027-03-28T12:00:00Z");
        assert_eq!(
            moments(&brussels("30 2 * * *"), night.0, night.1),
            [at("2027-03-28T01:00:00Z")]
        );
        assert_eq!(
            moments(&brussels("0 2 * * *"), night.0, night.1),
            [at("2027-03-28T01:00:00Z")]
        );
        // Neither the times around it nor the days around it are touched.
        assert_eq!(
            moments(&brussels("0 3 * * *"), night.0, night.1),
            [at("2027-03-28T01:00:00Z")]
        );
        assert_eq!(
            moments(&brussels("59 1 * * *"), night.0, night.1),
            [at("2027-03-28T00:59:00Z")]
        );
        assert_eq!(
            moments(
                &brussels("30 2 * * *"),
                "2027-03-26T12:00:00Z",
                "2027-03-30T12:00:00Z"
            ),
            [
                at("2027-03-27T01:30:00Z"),
                at("2027-03-28T01:00:00Z"),
                at("2027-03-29T00:30:00Z"),
                at("2027-03-30T00:30:00Z")
            ]
        );
    }

    /// On 31 October 2027 Brussels goes from 03:00 (+02:00) back to 02:00 (+01:00), at 01:00 UTC.
    #[test]
    fn in_autumn_a_time_that_comes_twice_counts_once() {
        let night = ("2027-10-30T12:00:00Z", "2027-10-31T12:00:00Z");
        assert_eq!(
            moments(&brussels("30 2 * * *"), night.0, night.1),
            [at("2027-10-31T00:30:00Z")]
        );
        assert_eq!(
            moments(&brussels("0 3 * * *"), night.0, night.1),
            [at("2027-10-31T02:00:00Z")]
        );
        assert_eq!(
            moments(
                &brussels("30 2 * * *"),
                "2027-10-29T12:00:00Z",
                "2027-11-01T12:00:00Z"
            ),
            [
                at("2027-10-30T00:30:00Z"),
                at("2027-10-31T00:30:00Z"),
                at("2027-11-01T01:30:00Z")
            ]
        );
        // Asked in the middle of the hour's second coming.
        assert_eq!(
            brussels("30 2 * * *").next_after(at("2027-10-31T01:10:00Z")),
            Some(at("2027-11-01T01:30:00Z"))
        );
    }

    #[test]
    fn each_of_several_named_times_is_a_fixed_one() {
        let calendar = brussels("0,30  2,14 * * *");
        assert_eq!(
            moments(&calendar, "2027-03-28T00:00:00Z", "2027-03-29T00:00:00Z"),
            [
                at("2027-03-28T01:00:00Z"),
                at("2027-03-28T12:00:00Z"),
                at("2027-03-28T12:30:00Z")
            ]
        );
        assert_eq!(
            moments(&calendar, "2027-10-30T23:00:00Z", "2027-10-31T23:00:00Z"),
            [
                at("2027-10-31T00:00:00Z"),
                at("2027-10-31T00:30:00Z"),
                at("2027-10-31T13:00:00Z"),
                at("2027-10-31T13:30:00Z")
            ]
        );
    }

    #[test]
    fn what_comes_every_few_minutes_does_so_through_both_changes() {
        for change in ["2027-03-28", "2027-10-31"] {
            let (from, to) = (format!("{change}T00:00:00Z"), format!("{change}T03:00:00Z"));
            let found = moments(&brussels("*/15 * * * *"), &from, &to);
            let every: Vec<_> = (1..12)
                .map(|quarter| at(&from) + TimeDelta::minutes(15 * quarter))
                .collect();
            assert_eq!(found, every);
        }
    }

    #[test]
    fn of_many_missed_moments_the_latest_is_found() {
        let cases = [
            (
                "30 2 * * *",
                "2027-01-01T01:30:00Z",
                "2027-01-08T12:00:00Z",
                "2027-01-08T01:30:00Z",
            ),
            (
                "30 2 * * *",
                "2027-01-01T01:30:00Z",
                "2027-01-01T01:30:00Z",
                "2027-01-01T01:30:00Z",
            ),
            (
                "30 2 * * *",
                "2027-01-01T01:30:00Z",
                "2027-01-02T01:29:59.999Z",
                "2027-01-01T01:30:00Z",
            ),
            (
                "30 2 * * *",
                "2027-01-01T01:30:00Z",
                "2027-01-02T01:30:00Z",
                "2027-01-02T01:30:00Z",
            ),
            (
                "* * * * *",
                "2020-01-01T00:00:00Z",
                "2027-01-08T12:00:42Z",
                "2027-01-08T12:00:00Z",
            ),
            // Dense once a year.
            (
                "* * * 6 *",
                "2020-06-01T00:00:00Z",
                "2027-02-01T00:00:00Z",
                "2026-06-30T21:59:00Z",
            ),
            // A moment that the expression does not name (any more) still stands for itself.
            (
                "30 2 * * *",
                "2027-01-01T05:00:00Z",
                "2027-01-01T06:00:00Z",
                "2027-01-01T05:00:00Z",
            ),
        ];
        for (expression, due, now, latest) in cases {
            let found = brussels(expression).latest(at(due), at(now));
            assert_eq!(found, at(latest), "{expression} {due} {now}");
        }
    }
}
