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
    Rollback = "rollback" "ROLLBACK" "transaction";
    Limits = "limits" "SELECT" "pg_settings";
    Election = "election" "SELECT" "pg_locks";
    SessionCreate = "session_create" "INSERT" "sessions";
    SessionPrincipal = "session_principal" "SELECT" "sessions";
    SessionRevoke = "session_revoke" "UPDATE" "sessions";
    SessionOfRefreshToken = "session_of_refresh_token" "SELECT" "refresh_tokens";
    RefreshTokenLock = "refresh_token_lock" "SELECT" "refresh_tokens";
    RefreshTokenRotate = "refresh_token_rotate" "INSERT" "refresh_tokens";
    RefreshTokensSince = "refresh_tokens_since" "SELECT" "refresh_tokens";
    RefreshTokenAdd = "refresh_token_add" "INSERT" "refresh_tokens";
    LoginReserve = "login_reserve" "INSERT" "login_failures";
    LoginRelease = "login_release" "UPDATE" "login_failures";
    LoginRecord = "login_record" "INSERT" "login_attempts";
    LoginAdopt = "login_adopt" "UPDATE" "login_failures";
    LoginUnlock = "login_unlock" "DELETE" "login_failures";
    LoginAttemptList = "login_attempt_list" "SELECT" "login_attempts";
    LockedAccountList = "locked_account_list" "SELECT" "login_failures";
    AuditInsert = "audit_insert" "INSERT" "audit_log";
    AuditList = "audit_list" "SELECT" "audit_log";
    UserByLogin = "user_by_login" "SELECT" "users";
    UserCredentials = "user_credentials" "SELECT" "users";
    UserCreate = "user_create" "INSERT" "users";
    UserSessionsRevoke = "user_sessions_revoke" "UPDATE" "sessions";
    SessionsRevoke = "sessions_revoke" "UPDATE" "sessions";
    UserPasswordHash = "user_password_hash" "SELECT" "users";
    UserPasswordRenew = "user_password_renew" "UPDATE" "users";
    UserPasswordUpdate = "user_password_update" "UPDATE" "users";
    UserById = "user_by_id" "SELECT" "users";
    UserList = "user_list" "SELECT" "users";
    UserLock = "user_lock" "SELECT" "users";
    AdministratorLock = "administrator_lock" "SELECT" "users";
    UserUpdate = "user_update" "UPDATE" "users";
    UserCitiesUpdate = "user_cities_update" "INSERT" "user_cities";
    MasterProfileUpdate = "master_profile_update" "UPDATE" "master_profiles";
    MasterHoldings = "master_holdings" "SELECT" "requests";
    MasterLock = "master_lock" "SELECT" "users";
    UserProfile = "user_profile" "SELECT" "users";
    MasterForAssignment = "master_for_assignment" "SELECT" "users";
    MasterShare = "master_share" "SELECT" "master_profiles";
    Dictionary = "dictionary" "SELECT" "dictionaries";
    CacheVersions = "cache_versions" "SELECT" "cache_versions";
    TimezoneKnown = "timezone_known" "SELECT" "pg_timezone_names";
    CityByCode = "city_by_code" "SELECT" "cities";
    DictionaryInsert = "dictionary_insert" "INSERT" "dictionaries";
    DictionaryLock = "dictionary_lock" "SELECT" "dictionaries";
    DictionaryUpdate = "dictionary_update" "UPDATE" "dictionaries";
    CampaignNumberInsert = "campaign_number_insert" "INSERT" "campaign_numbers";
    CampaignNumberDelete = "campaign_number_delete" "DELETE" "campaign_numbers";
    ClientUpsert = "client_upsert" "INSERT" "clients";
    RequestInsert = "request_insert" "INSERT" "requests";
    RequestById = "request_by_id" "SELECT" "requests";
    RequestLock = "request_lock" "SELECT" "requests";
    RequestList = "request_list" "SELECT" "requests";
    RequestUpdate = "request_update" "UPDATE" "requests";
    RequestStuck = "request_stuck" "SELECT" "requests";
    RequestOpenOfClient = "request_open_of_client" "SELECT" "requests";
    RequestEventInsert = "request_event_insert" "INSERT" "request_events";
    RequestEventList = "request_event_list" "SELECT" "request_events";
    SlaPolicyList = "sla_policy_list" "SELECT" "sla_policies";
    SlaPolicyLock = "sla_policy_lock" "SELECT" "sla_policies";
    SlaPolicyUpdate = "sla_policy_update" "UPDATE" "sla_policies";
    SlaTimerList = "sla_timer_list" "SELECT" "sla_timers";
    SlaBreach = "sla_breach" "UPDATE" "sla_timers";
    SlaUnansweredOffers = "sla_unanswered_offers" "SELECT" "requests";
    EventWriters = "event_writers" "SELECT" "pg_locks";
    EventStart = "event_start" "SELECT" "request_events";
    EventTail = "event_tail" "SELECT" "request_events";
    EventBacklog = "event_backlog" "SELECT" "request_events";
    SessionsAlive = "sessions_alive" "SELECT" "sessions";
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
    IdempotencyLock = "idempotency_lock" "SELECT" "pg_locks";
    IdempotencyFind = "idempotency_find" "SELECT" "idempotency_keys";
    IdempotencyInsert = "idempotency_insert" "INSERT" "idempotency_keys";
    Retention = "retention" "UPDATE" "retained";
    LastBackup = "last_backup" "SELECT" "maintenance_runs";
    Import = "import" "INSERT" "imported_keys";
    RecordingNote = "recording_note" "INSERT" "recordings";
    RecordingsDue = "recordings_due" "SELECT" "recordings";
    RecordingsOfCall = "recordings_of_call" "SELECT" "recordings";
    RecordingUpdate = "recording_update" "UPDATE" "recordings";
    CampaignByLine = "campaign_by_line" "SELECT" "campaign_numbers";
    ReportCallCentre = "report_call_centre" "SELECT" "calls";
    ReportCities = "report_cities" "SELECT" "requests";
    ReportMasters = "report_masters" "SELECT" "requests";
    ReportCampaigns = "report_campaigns" "SELECT" "requests";
    CollectorCompute = "collector_compute" "SELECT" "requests";
    CollectorKeep = "collector_keep" "INSERT" "collector_snapshots";
    CollectorRead = "collector_read" "SELECT" "collector_snapshots";
}
