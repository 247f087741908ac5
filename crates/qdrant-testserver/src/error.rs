//! Errors as the server words them, with their HTTP status and gRPC code.

use std::fmt;

use axum::http::StatusCode;
use qdrant_edge::OperationError;
use tonic::{Code, Status};

/// What went wrong, in the classes that the API knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    BadInput,
    AlreadyExists,
    NotFound,
    Service,
    BadRequest,
    Forbidden,
    Checksum,
    /// What only a cluster can do; the text stands alone.
    Standalone,
    /// The body could not be read; the text stands alone.
    Format,
    /// The body could be read, but not a value in it; the text stands alone.
    Validation,
}

/// An answer other than success.
#[derive(Clone, Debug)]
pub(crate) struct Error {
    kind: Kind,
    description: String,
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($name:ident $kind:ident),* $(,)?) => {
        impl Error {
            $(pub(crate) fn $name(description: impl Into<String>) -> Self {
                Self { kind: Kind::$kind, description: description.into() }
            })*
        }
    };
}

constructors! {
    bad_input BadInput,
    already_exists AlreadyExists,
    not_found NotFound,
    service Service,
    bad_request BadRequest,
    forbidden Forbidden,
    checksum Checksum,
    standalone Standalone,
    format Format,
    validation Validation,
}

impl Error {
    pub(crate) fn no_collection(name: &str) -> Self {
        Self::not_found(format!("Collection `{name}` doesn't exist!"))
    }

    pub(crate) fn is_bad_input(&self) -> bool {
        self.kind == Kind::BadInput
    }

    pub(crate) fn http_status(&self) -> StatusCode {
        match self.kind {
            Kind::BadInput | Kind::BadRequest | Kind::Checksum | Kind::Format => {
                StatusCode::BAD_REQUEST
            }
            Kind::AlreadyExists => StatusCode::CONFLICT,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Service => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::Standalone => StatusCode::METHOD_NOT_ALLOWED,
            Kind::Validation => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.kind {
            Kind::BadInput | Kind::AlreadyExists => "Wrong input: ",
            Kind::NotFound => "Not found: ",
            Kind::Service => "Service internal error: ",
            Kind::BadRequest => "Bad request: ",
            Kind::Forbidden => "Forbidden: ",
            Kind::Checksum => "Checksum mismatch: ",
            Kind::Standalone | Kind::Format | Kind::Validation => "",
        };
        write!(f, "{prefix}{}", self.description)
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = match error.kind {
            Kind::BadInput | Kind::BadRequest | Kind::Format | Kind::Validation => {
                Code::InvalidArgument
            }
            Kind::AlreadyExists => Code::AlreadyExists,
            Kind::NotFound => Code::NotFound,
            Kind::Service => Code::Internal,
            Kind::Forbidden => Code::PermissionDenied,
            Kind::Checksum => Code::DataLoss,
            Kind::Standalone => Code::Unimplemented,
        };
        Self::new(code, error.to_string())
    }
}

impl From<OperationError> for Error {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::ServiceError { description, .. } => Self::service(description),
            OperationError::PointIdError { missed_point_id } => {
                Self::not_found(format!("No point with id {missed_point_id} found"))
            }
            OperationError::Cancelled { description } => {
                Self::service(format!("Operation cancelled: {description}"))
            }
            OperationError::WrongSparse => {
                Self::bad_input("Conversion between sparse and regular vectors failed")
            }
            OperationError::WrongMulti => {
                Self::bad_input("Conversion between multi and regular vectors failed")
            }
            OperationError::InconsistentStorage { .. }
            | OperationError::OutOfMemory { .. }
            | OperationError::Timeout { .. } => Self::service(error.to_string()),
            _ => Self::bad_input(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::service(format!("File IO error: {error}"))
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::service(format!("Json error: {error}"))
    }
}

impl From<tokio::task::JoinError> for Error {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::service(error.to_string())
    }
}
