//! An append that has grown too long goes out in pieces.
//!
//! With `batch_append` raft-rs adds to an append that it has not handed out yet, up to `max_size_per_msg` each time and
//! without bound in all: a peer that turns out to lack ten megabytes would get them in one message. On a slow link no
//! heartbeat passes for as long as that takes, and without pre-vote the peer's campaigns depose leader after leader.

use raft::eraftpb::{Entry, Message, MessageType};

use crate::limits::APPEND_BYTES_MAX;

fn bytes(entry: &Entry) -> u64 {
    entry.data.len() as u64
}

/// Hands on `m`, an append with more than [`APPEND_BYTES_MAX`] bytes of entries as several that each go on where the
/// one before ends. A piece has one entry at least.
pub(super) fn in_pieces(mut m: Message, mut send: impl FnMut(Message)) {
    let is_long =
        m.entries.len() > 1 && m.entries.iter().map(bytes).sum::<u64>() > APPEND_BYTES_MAX;
    if m.get_msg_type() != MessageType::MsgAppend || !is_long {
        return send(m);
    }
    let mut rest = m.take_entries().into_vec();
    while !rest.is_empty() {
        let mut total = 0;
        let fits = rest.iter().take_while(|entry| {
            total += bytes(entry);
            total <= APPEND_BYTES_MAX
        });
        let count = fits.count().max(1);
        let later = rest.split_off(count);
        let last = &rest[count - 1];
        let (index, log_term) = (last.index, last.term);
        let mut piece = m.clone();
        piece.set_entries(std::mem::replace(&mut rest, later).into());
        send(piece);
        (m.index, m.log_term) = (index, log_term);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(sizes: &[usize]) -> Message {
        let mut m = Message { index: 9, log_term: 2, commit: 10, ..Default::default() };
        m.set_msg_type(MessageType::MsgAppend);
        let entries = (10..).zip(sizes).map(|(index, size)| Entry {
            index,
            term: 3,
            data: vec![7; *size].into(),
            ..Default::default()
        });
        m.set_entries(entries.collect::<Vec<_>>().into());
        m
    }

    /// (index before, its term, entries) of each piece.
    fn pieces(m: Message) -> Vec<(u64, u64, usize)> {
        let mut out = Vec::new();
        in_pieces(m, |piece| {
            assert_eq!(piece.commit, 10);
            assert_eq!(piece.entries.first().map_or(10, |e| e.index), piece.index + 1);
            out.push((piece.index, piece.log_term, piece.entries.len()));
        });
        out
    }

    #[test]
    fn a_long_append_is_cut_between_entries_and_a_short_one_is_not() {
        let half = APPEND_BYTES_MAX as usize / 2;
        assert_eq!(pieces(append(&[])), [(9, 2, 0)]);
        assert_eq!(pieces(append(&[half, half])), [(9, 2, 2)]);
        assert_eq!(pieces(append(&[half, half, 1])), [(9, 2, 2), (11, 3, 1)]);
        assert_eq!(pieces(append(&[5 * half, 1, 5 * half])), [(9, 2, 1), (10, 3, 1), (11, 3, 1)]);
    }
}
