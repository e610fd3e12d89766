//! How a live connection is kept: what the next process needs is its [`Account`], the rest is here.

use abi::{Direction, Endpoint, Kind, Record, TcpState, record::flags};

use super::{
    Connection,
    account::{Account, narrow},
};

/// A live connection without its account. Small, since there may be very many.
#[derive(Debug)]
pub(super) struct Row<T> {
    pub(super) cookie: u64,
    pub(super) begun_ns: u64,
    /// When the newest record was made.
    pub(super) now_ns: u64,
    segments_in: u32,
    segments_out: u32,
    srtt_us: u32,
    rttvar_us: u32,
    min_rtt_us: u32,
    mss: u32,
    cwnd: u32,
    /// Its block in the image.
    pub(super) block: u32,
    /// The pass that saw it last.
    pub(super) seen: u32,
    /// Where its account waits to be saved, counted from 1; 0 if it does not.
    pub(super) waits: u32,
    original: Endpoint,
    /// The low half of its account's, so that who only asks whether it is the present one need not read that.
    pub(super) watch: u16,
    flags: u8,
    state: u8,
    direction: u8,
    /// Its block has been written.
    pub(super) saved: bool,
    pub(super) data: T,
}

const _: () = assert!(flags::ALL <= u8::MAX as u32);

impl<T> Row<T> {
    /// Makes one of its first record and account; `seen` is the pass that goes on.
    pub(super) fn new(record: &Record, account: &Account, block: u32, seen: u32, data: T) -> Self {
        let mut row = Self {
            cookie: record.cookie,
            begun_ns: account.begun_ns,
            now_ns: 0,
            segments_in: 0,
            segments_out: 0,
            srtt_us: 0,
            rttvar_us: 0,
            min_rtt_us: 0,
            mss: 0,
            cwnd: 0,
            block,
            seen,
            waits: 0,
            original: Endpoint::default(),
            watch: account.watch as u16,
            flags: 0,
            state: 0,
            direction: 0,
            saved: false,
            data,
        };
        row.update(record, account);
        row
    }

    /// Makes one that was saved; the next record of it tells the rest.
    pub(super) fn found(account: &Account, direction: Direction, block: u32, data: T) -> Self {
        let (state, direction) = (TcpState::Established as u8, direction as u8);
        let record = Record { cookie: account.cookie, now_ns: account.start_ns, state, direction, ..Record::default() };
        Self { saved: true, ..Self::new(&record, account, block, 0, data) }
    }

    /// Takes what the newest record says.
    pub(super) fn update(&mut self, last: &Record, account: &Account) {
        self.now_ns = last.now_ns;
        (self.segments_in, self.segments_out) = (narrow(last.segments_in), narrow(last.segments_out));
        (self.srtt_us, self.rttvar_us, self.min_rtt_us) = (last.srtt_us, last.rttvar_us, last.min_rtt_us);
        (self.mss, self.cwnd) = (last.mss, last.cwnd);
        self.original = last.original;
        (self.flags, self.state, self.direction) = (last.flags as u8, last.state, last.direction);
        self.watch = account.watch as u16;
    }

    /// Shows the connection, but for what others keep with it.
    pub(super) fn shown(&self, account: &Account) -> Connection<()> {
        let Account { begun_ns, begun_wall_ns, .. } = *account;
        Connection { last: self.last(account), begun_ns, begun_wall_ns, data: () }
    }

    /// Returns the newest record, each total the highest seen.
    pub(super) fn last(&self, account: &Account) -> Record {
        Record {
            kind: Kind::Progress as u32,
            flags: self.flags.into(),
            cookie: self.cookie,
            netns: account.netns,
            start_ns: account.start_ns,
            now_ns: self.now_ns,
            sent: account.sent,
            received: account.received,
            retransmits: account.retransmits.into(),
            lost: account.lost.into(),
            segments_in: self.segments_in.into(),
            segments_out: self.segments_out.into(),
            srtt_us: self.srtt_us,
            rttvar_us: self.rttvar_us,
            min_rtt_us: self.min_rtt_us,
            mss: self.mss,
            cwnd: self.cwnd,
            error: 0,
            local: account.local,
            remote: account.remote,
            original: self.original,
            state: self.state,
            direction: self.direction,
        }
    }
}

#[cfg(test)]
mod tests {
    use abi::{Direction, Endpoint, Kind, Record, TcpState};

    use super::{Account, Row};
    use crate::store::BLOCK;

    #[test]
    fn a_record_comes_out_as_it_went_in_also_through_the_image() {
        let record = Record {
            kind: Kind::Progress as u32,
            flags: abi::record::flags::ALL,
            cookie: 1,
            netns: 2,
            start_ns: 3,
            now_ns: 4,
            sent: u64::MAX,
            received: u64::MAX - 1,
            retransmits: u32::MAX.into(),
            lost: 5,
            segments_in: 6,
            segments_out: u32::MAX.into(),
            srtt_us: 7,
            rttvar_us: 8,
            min_rtt_us: 9,
            mss: 10,
            cwnd: u32::MAX,
            error: 0,
            local: Endpoint::v4([10, 0, 0, 1], 11),
            remote: Endpoint { address: [12; 16], port: [13, 14] },
            original: Endpoint::v4([10, 0, 0, 2], 15),
            state: TcpState::CloseWait as u8,
            direction: Direction::Inbound as u8,
        };
        let account = Account::new(&record, 16, 17, u32::MAX - 1);
        let row = Row::new(&record, &account, 18, 19, ());
        assert_eq!(row.last(&account), record);
        let mut image = [u64::MAX; BLOCK];
        account.write(&mut image);
        assert_eq!((Account::read(&image), image[0] as u32), (account, u32::MAX));
    }

    #[test]
    fn a_row_is_small() {
        assert!(size_of::<Row<[u64; 7]>>() <= 144, "{}", size_of::<Row<[u64; 7]>>());
    }
}
