//! What the operator of a server should hear of, while requests are answered as well as they can be.

use std::{fmt, sync::Arc};

/// Who is told. By default nobody.
#[derive(Clone, Default)]
pub struct Notices(Option<Arc<Listener>>);

type Listener = dyn Fn(&str) + Send + Sync;

impl Notices {
    /// Each notice is one line without its end.
    pub fn to(listener: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(super) fn say(&self, message: &str) {
        if let Some(listener) = &self.0 {
            listener(message);
        }
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notices")
    }
}
