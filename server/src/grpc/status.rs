//! Errors on the wire: core's texts with etcd's gRPC codes (surface spec §10.1, §10.2).

use detkv_core::ApiError;
use tonic::{Code, Status};

/// The answer to a client whose request failed.
pub fn status(error: &ApiError) -> Status {
    Status::new(code(error), error.to_string())
}

fn code(error: &ApiError) -> Code {
    use ApiError::*;
    match error {
        EmptyKey | KeyNotFound | ValueProvided | LeaseProvided | TooManyOps | DuplicateKey
        | InvalidSortOption | RequestTooLarge | MemberBadUrls | InvalidArgument(_) => {
            Code::InvalidArgument
        }
        Compacted | FutureRevision | LeaseTtlTooLarge => Code::OutOfRange,
        NoSpace => Code::ResourceExhausted,
        LeaseNotFound | MemberNotFound => Code::NotFound,
        LeaseExists
        | MemberExists
        | PeerUrlExists
        | MemberNotLearner
        | LearnerNotReady
        | TooManyLearners
        | NotLeader
        | NotSupportedForLearner
        | BadLeaderTransferee => Code::FailedPrecondition,
        NoLeader
        | LeaderChanged
        | Stopped
        | Timeout
        | TimeoutLeaderFailure
        | TimeoutConnectionLost
        | TimeoutApplied
        | Unhealthy => Code::Unavailable,
        Corrupt => Code::DataLoss,
        DeadlineExceeded => Code::DeadlineExceeded,
        Unimplemented(_) => Code::Unimplemented,
        // etcd returns the first two as a type that its gRPC layer does not recognise, and has no code
        // for the others: all arrive as Unknown, and clients go by the text.
        TooManyRequests
        | NotEnoughStarted
        | ProposalDropped
        | TimeoutLeaderTransfer
        | Defragment(_) => Code::Unknown,
    }
}

/// tonic's complaint about a request over the limit, in the words of Go's gRPC.
pub fn translate_too_large(found: Status) -> Status {
    let sizes = (found.code() == Code::OutOfRange)
        .then(|| found.message().strip_prefix("Error, decoded message length too large: found "))
        .flatten()
        .and_then(|rest| rest.strip_suffix(" bytes"))
        .and_then(|rest| rest.split_once(" bytes, the limit is: "));
    match sizes {
        Some((len, limit)) => Status::resource_exhausted(format!(
            "grpc: received message larger than max ({len} vs. {limit})"
        )),
        None => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_texts_are_etcds() {
        for (error, code, text) in [
            (ApiError::EmptyKey, Code::InvalidArgument, "etcdserver: key is not provided"),
            (
                ApiError::Compacted,
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
            ),
            (ApiError::LeaseNotFound, Code::NotFound, "etcdserver: requested lease not found"),
            (ApiError::TooManyRequests, Code::Unknown, "etcdserver: too many requests"),
            (ApiError::NoLeader, Code::Unavailable, "etcdserver: no leader"),
            (ApiError::DeadlineExceeded, Code::DeadlineExceeded, "context deadline exceeded"),
        ] {
            let status = status(&error);
            assert_eq!((status.code(), status.message()), (code, text));
        }
    }

    #[test]
    fn an_oversized_request_is_refused_in_gos_words() {
        let tonics = Status::out_of_range(
            "Error, decoded message length too large: found 3000000 bytes, the limit is: 2097152 bytes",
        );
        let ours = translate_too_large(tonics);
        assert_eq!(ours.code(), Code::ResourceExhausted);
        assert_eq!(ours.message(), "grpc: received message larger than max (3000000 vs. 2097152)");
        let other = translate_too_large(Status::out_of_range("x"));
        assert_eq!((other.code(), other.message()), (Code::OutOfRange, "x"));
    }
}
