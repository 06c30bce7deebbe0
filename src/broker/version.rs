//! Versions of Redis, and what needs which.

/// Major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RedisVersion(u32, u32);

impl RedisVersion {
    /// An older one is refused: the scripts begin with `#!lua`.
    pub const OLDEST: Self = Self(7, 0);
    /// From here on a server can say what is on its disk.
    pub const WITH_WAITAOF: Self = Self(7, 2);

    /// `redis_version` of INFO. `None` where it does not begin with a number.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next().and_then(Result::ok).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let of = |text| RedisVersion::parse(text).expect(text);
        assert!(of("6.2.14") < RedisVersion::OLDEST && of("7.0.15") >= RedisVersion::OLDEST);
        assert!(of("7.0.15") < RedisVersion::WITH_WAITAOF && of("7.10.1") > RedisVersion::WITH_WAITAOF);
        assert!(of("8.2.3") > RedisVersion::WITH_WAITAOF && of("255.255.255") > RedisVersion::WITH_WAITAOF);
        assert_eq!((RedisVersion::parse(""), RedisVersion::parse("unknown")), (None, None));
    }
}
