//! The stable codes of every error that leaves the process.

/// What went wrong, as a word programs may rely on. Nothing was done, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not JSON, not an object, a field of the wrong form.
    InvalidMessage,
    /// A `type` this socket does not know.
    UnknownType,
    /// The user lacks the permission.
    PermissionDenied,
    /// Over the command budget.
    RateLimitExceeded,
    /// The same `request_id` came with another body before.
    RequestConflict,
    /// The tenant has too many commands waiting.
    QueueFull,
    /// Redis or SQL is away.
    Unavailable,
    /// Redis did not answer in time; it may have been done. Sending the same `request_id` again is safe.
    OutcomeUnknown,
    /// No, an invalid or an expired token.
    Unauthorized,
    /// The token may not do this, or the origin is not allowed.
    Forbidden,
    /// No such resource in this tenant.
    NotFound,
    /// Over a connection limit.
    TooManyConnections,
    /// The request does not fit what is there already.
    Conflict,
    /// The path exists, for other methods.
    MethodNotAllowed,
    /// The body has too many bytes.
    TooLarge,
    /// The body is compressed, or encoded otherwise.
    UnsupportedEncoding,
    /// The body did not arrive in time.
    Timeout,
    /// A bug; the log has the details.
    Internal,
}

impl ErrorCode {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidMessage => "invalid_message",
            Self::UnknownType => "unknown_type",
            Self::PermissionDenied => "permission_denied",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::RequestConflict => "request_conflict",
            Self::QueueFull => "queue_full",
            Self::Unavailable => "unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::TooManyConnections => "too_many_connections",
            Self::Conflict => "conflict",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status that goes with it.
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidMessage | Self::UnknownType => 400,
            Self::Unauthorized => 401,
            Self::PermissionDenied | Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::RequestConflict | Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UnsupportedEncoding => 415,
            Self::RateLimitExceeded | Self::TooManyConnections | Self::QueueFull => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::OutcomeUnknown => 504,
        }
    }
}
