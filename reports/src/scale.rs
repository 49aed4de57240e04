//! From values to places on the page: linear time, logarithmic latency, round tick steps.

/// Horizontal axis: virtual time, the same for every run on a page.
#[derive(Debug, Clone, Copy)]
pub struct TimeScale {
    /// Invariant: `> 0`.
    pub to_ms: f64,
    pub left: f64,
    pub width: f64,
}

impl TimeScale {
    pub fn new(to_ms: u64, left: f64, width: f64) -> Self {
        Self { to_ms: to_ms.max(1) as f64, left, width }
    }

    /// Place of a time; times past the end stay at the right edge.
    pub fn x(&self, ms: f64) -> f64 {
        self.left + (ms / self.to_ms).clamp(0.0, 1.0) * self.width
    }

    pub fn right(&self) -> f64 {
        self.left + self.width
    }
}

/// Vertical axis in whole decades of microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogScale {
    pub min_exp: i32,
    /// Invariant: `> min_exp`.
    pub max_exp: i32,
}

impl LogScale {
    /// The decades that hold all of `values` (microseconds; 0 counts as 1), at least two.
    pub fn covering(values: impl Iterator<Item = u64>) -> Self {
        let (mut low, mut high) = (u64::MAX, 0);
        for value in values {
            low = low.min(value.max(1));
            high = high.max(value.max(1));
        }
        if high == 0 {
            return Self { min_exp: 2, max_exp: 4 };
        }
        let min_exp = low.ilog10() as i32;
        let max_exp = if high == 10u64.saturating_pow(high.ilog10()) {
            high.ilog10() as i32
        } else {
            high.ilog10() as i32 + 1
        };
        Self { min_exp, max_exp: max_exp.max(min_exp + 2) }
    }

    /// 0 at the bottom, 1 at the top.
    pub fn fraction(&self, us: f64) -> f64 {
        let exp = us.max(1e-3).log10();
        ((exp - self.min_exp as f64) / (self.max_exp - self.min_exp) as f64).clamp(0.0, 1.0)
    }

    /// One tick per decade, in microseconds.
    pub fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        (self.min_exp..=self.max_exp).map(|exp| 10f64.powi(exp))
    }
}

/// The smallest of 1, 2, 5 × 10ⁿ that divides `span` into at most `parts` parts. `span > 0`.
pub fn round_step(span: f64, parts: f64) -> f64 {
    let rough = (span / parts).max(1e-9);
    let magnitude = 10f64.powf(rough.log10().floor());
    for factor in [1.0, 2.0, 5.0] {
        // The tolerance keeps 0.1 + rounding from becoming 0.2.
        if factor * magnitude >= rough * (1.0 - 1e-9) {
            return factor * magnitude;
        }
    }
    10.0 * magnitude
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_one_two_or_five_of_a_decade() {
        assert_eq!(round_step(20_000.0, 160.0), 200.0);
        assert_eq!(round_step(20_000.0, 20.0), 1000.0);
        assert_eq!(round_step(7.0, 10.0), 1.0);
        assert_eq!(round_step(60_000.0, 12.0), 5000.0);
    }

    #[test]
    fn decades_cover_every_value() {
        assert_eq!(
            LogScale::covering([850, 4_000_000].into_iter()),
            LogScale { min_exp: 2, max_exp: 7 }
        );
        assert_eq!(
            LogScale::covering([1000, 1000].into_iter()),
            LogScale { min_exp: 3, max_exp: 5 }
        );
        assert_eq!(LogScale::covering([0, u64::MAX].into_iter()).min_exp, 0);
        assert_eq!(LogScale::covering(std::iter::empty()), LogScale { min_exp: 2, max_exp: 4 });
    }

    #[test]
    fn times_outside_the_run_stay_on_the_page() {
        let scale = TimeScale::new(0, 100.0, 1000.0);
        assert_eq!(scale.x(5.0), 1100.0);
        assert_eq!(TimeScale::new(1000, 100.0, 1000.0).x(500.0), 600.0);
    }
}
