//! Ids of jobs that are submitted as lines and name none: the same line of the same request has the same one.
//!
//! Those of one request are one after the other, so that a batch of them goes into one place of the database's index; before, each went
//! somewhere else, into a page of its own.

use uuid::Uuid;

/// What the ids of one request are made of.
pub(super) struct LineIds {
    /// Tenant, user, request and campaign.
    request: String,
    /// The first 64 bits, and 14 more.
    high: u64,
    low: u64,
    is_former: bool,
}

/// Bits of the number of a line.
const LINE_BITS: u32 = 48;

impl LineIds {
    pub(super) fn new(request: &str) -> Self {
        let (high, low) = Uuid::new_v5(&Uuid::NAMESPACE_OID, request.as_bytes()).as_u64_pair();
        // An id of version 8, whose other bits mean what its maker likes.
        let high = (high & !0xf000) | 0x8000;
        let low = (low & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000) >> LINE_BITS << LINE_BITS;
        Self { request: request.to_owned(), high, low, is_former: false }
    }

    pub(super) fn of(&self, line: u64) -> String {
        match self.is_former {
            true => self.former(line),
            false => Uuid::from_u64_pair(self.high, self.low | (line & ((1 << LINE_BITS) - 1))).to_string(),
        }
    }

    /// As versions before made it.
    pub(super) fn former(&self, line: u64) -> String {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{} {line}", self.request).as_bytes()).to_string()
    }

    pub(super) fn go_on_with_former(&mut self) {
        self.is_former = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_request_have_ids_in_their_order_and_those_of_another_request_others() {
        let (ids, other) = (LineIds::new("acme ann spring "), LineIds::new("acme ann summer "));
        let of = |ids: &LineIds| (1..=10_000).map(|line| ids.of(line)).collect::<Vec<_>>();
        let all = of(&ids);
        assert!(all.is_sorted_by(|one, next| one < next));
        assert_eq!(all, of(&LineIds::new("acme ann spring ")));
        assert!(of(&other).iter().all(|id| !all.contains(id)));
        let id = Uuid::parse_str(&all[0]).expect("an id");
        assert_eq!((id.get_version_num(), id.get_variant()), (8, uuid::Variant::RFC4122));
    }
}
