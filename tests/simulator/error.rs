//! Errors as the API knows them: a code, an exception class number and a text (facts sheet, 3).

/// An error of the API; the code is also the HTTP status of a synchronous reply.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// `errorcode`.
    pub code: u16,
    /// `errortext`.
    pub text: String,
}

impl ApiError {
    /// An error with a code and a text.
    pub fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// 401, the one sentence for every failed authentication.
    pub fn unauthorized() -> Self {
        Self::new(401, "unable to verify user credentials and/or request signature")
    }

    /// 431: a missing or invalid parameter, an unknown id, a wrong state.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(431, text)
    }

    /// 530: everything that goes wrong inside.
    pub fn internal(text: impl Into<String>) -> Self {
        Self::new(530, text)
    }

    /// 531: no access.
    pub fn permission(text: impl Into<String>) -> Self {
        Self::new(531, text)
    }

    /// 535: an account's limit.
    pub fn limit(text: impl Into<String>) -> Self {
        Self::new(535, text)
    }

    /// `cserrorcode`, the number of the exception's class; a plain 401 has none.
    pub fn class_number(&self) -> Option<u32> {
        match self.code {
            401 => None,
            431 => Some(4350),
            530 => Some(4250),
            531 => Some(4365),
            535 => Some(4370),
            _ => Some(9999),
        }
    }
}
