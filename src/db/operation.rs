//! Every database operation by name: the `operation` label, and the name of its span.

macro_rules! operations {
    ($($variant:ident = $name:literal $verb:literal $table:literal;)*) => {
        crate::label_enum! {
            /// One statement of a `store.rs`, as metrics and spans name it.
            pub enum DbOperation { $($variant = $name),* }
        }

        impl DbOperation {
            /// `{operation} {table}`: `db.query.summary` of the semantic conventions.
            #[must_use]
            pub const fn summary(self) -> &'static str {
                match self { $(Self::$variant => concat!($verb, " ", $table)),* }
            }
        }
    };
}

operations! {
    Begin = "begin" "BEGIN" "transaction";
    Commit = "commit" "COMMIT" "transaction";
    Election = "election" "SELECT" "pg_locks";
    SessionCreate = "session_create" "INSERT" "sessions";
    SessionPrincipal = "session_principal" "SELECT" "sessions";
    SessionRevoke = "session_revoke" "UPDATE" "sessions";
    UserCredentials = "user_credentials" "SELECT" "users";
    UserCreate = "user_create" "INSERT" "users";
    UserProfile = "user_profile" "SELECT" "users";
    MasterForAssignment = "master_for_assignment" "SELECT" "users";
    MasterShare = "master_share" "SELECT" "master_profiles";
    Dictionary = "dictionary" "SELECT" "dictionaries";
    ClientUpsert = "client_upsert" "INSERT" "clients";
    RequestInsert = "request_insert" "INSERT" "requests";
    RequestById = "request_by_id" "SELECT" "requests";
    RequestLock = "request_lock" "SELECT" "requests";
    RequestList = "request_list" "SELECT" "requests";
    RequestUpdate = "request_update" "UPDATE" "requests";
    RequestOpenOfClient = "request_open_of_client" "SELECT" "requests";
    RequestEventInsert = "request_event_insert" "INSERT" "request_events";
    RequestEventList = "request_event_list" "SELECT" "request_events";
    CommentInsert = "comment_insert" "INSERT" "request_comments";
    CommentList = "comment_list" "SELECT" "request_comments";
    TransactionInsert = "transaction_insert" "INSERT" "transactions";
    TransactionOfRequest = "transaction_of_request" "SELECT" "transactions";
    TransactionById = "transaction_by_id" "SELECT" "transactions";
    TransactionList = "transaction_list" "SELECT" "transactions";
    TransactionBalance = "transaction_balance" "SELECT" "transactions";
    TransactionSign = "transaction_sign" "SELECT" "transaction_types";
    MasterOfTransaction = "master_of_transaction" "SELECT" "users";
    TransactionLock = "transaction_lock" "SELECT" "transactions";
    FileById = "file_by_id" "SELECT" "files";
    FileList = "file_list" "SELECT" "files";
    FileCount = "file_count" "SELECT" "files";
    FileInsert = "file_insert" "INSERT" "files";
    FileDelete = "file_delete" "UPDATE" "files";
    WebhookInsert = "webhook_insert" "INSERT" "webhook_events";
    WebhookClaim = "webhook_claim" "SELECT" "webhook_events";
    WebhookOfCall = "webhook_of_call" "SELECT" "webhook_events";
    WebhookFinish = "webhook_finish" "UPDATE" "webhook_events";
    WebhookBacklog = "webhook_backlog" "SELECT" "webhook_events";
    CallLock = "call_lock" "SELECT" "calls";
    CallById = "call_by_id" "SELECT" "calls";
    CallList = "call_list" "SELECT" "calls";
    CallUpsert = "call_upsert" "INSERT" "calls";
    CallLink = "call_link" "UPDATE" "calls";
    RecordingNote = "recording_note" "INSERT" "recordings";
    RecordingsDue = "recordings_due" "SELECT" "recordings";
    RecordingsOfCall = "recordings_of_call" "SELECT" "recordings";
    RecordingUpdate = "recording_update" "UPDATE" "recordings";
    CampaignByLine = "campaign_by_line" "SELECT" "campaign_numbers";
}
