//! Restart policies with docker's pauses (moby, `restartmanager`).

use std::time::Duration;

use compose::Restart;

/// The first pause.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A container that ran for so long begins with the first pause again.
const RAN_WELL: Duration = Duration::from_secs(10);

/// The policy of one container, and how often it was followed.
#[derive(Debug)]
pub(crate) struct Restarts {
    policy: Restart,
    count: u32,
    pause: Option<Duration>,
}

impl Restarts {
    pub(crate) fn new(policy: Restart) -> Self {
        Self { policy, count: 0, pause: None }
    }

    /// It ended with this code after running so long: the pause before it is started again, or `None`. Who stopped it by hand
    /// does not ask.
    pub(crate) fn next(&mut self, exit_code: i32, ran: Duration) -> Option<Duration> {
        let is_wanted = match self.policy {
            Restart::No => false,
            Restart::Always | Restart::UnlessStopped => true,
            Restart::OnFailure { attempts } => exit_code != 0 && attempts.is_none_or(|most| self.count < most),
        };
        if !is_wanted {
            return None;
        }
        self.count += 1;
        let pause = match self.pause.filter(|_| ran < RAN_WELL) {
            None => PAUSE_FIRST,
            Some(pause) => (pause * 2).min(PAUSE_MAX),
        };
        self.pause = Some(pause);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(policy: Restart, ends: &[(i32, u64)]) -> Vec<Option<u128>> {
        let mut restarts = Restarts::new(policy);
        let next = |(code, ran): &(i32, u64)| restarts.next(*code, Duration::from_secs(*ran)).map(|p| p.as_millis());
        ends.iter().map(next).collect()
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_good_run() {
        let ends: Vec<(i32, u64)> = (0..12).map(|_| (0, 1)).chain([(0, 10), (0, 1)]).collect();
        let found: Vec<u128> = pauses(Restart::Always, &ends).into_iter().flatten().collect();
        assert_eq!(found, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000, 100, 200],);
    }

    #[test]
    fn only_what_the_policy_names_is_started_again() {
        assert_eq!(pauses(Restart::No, &[(1, 0)]), [None]);
        assert_eq!(pauses(Restart::UnlessStopped, &[(0, 0)]), [Some(100)]);
        assert_eq!(pauses(Restart::OnFailure { attempts: None }, &[(1, 0), (0, 0)]), [Some(100), None]);
        let twice = Restart::OnFailure { attempts: Some(2) };
        assert_eq!(pauses(twice, &[(1, 0), (2, 30), (3, 0)]), [Some(100), Some(100), None]);
    }
}
