//! Handlers state the right they need as their first argument: `async fn assign(caller:
//! RequestAssigner, …)`. Extracting it authenticates (401), asks the policy (403) and yields the
//! scope that the handler's SQL must apply (404 for what lies outside).

use std::{net::IpAddr, ops::Deref};

use axum::{
    extract::FromRequestParts,
    http::{HeaderValue, header, request::Parts},
};
use chrono::{DateTime, Utc};

use super::{
    policy::{self, Action, Role, Scope},
    sessions, store,
    tokens::Claims,
};
use crate::{
    app::App,
    config::Secret,
    db::{Conn, Plans},
    error::{self, AppError},
    http::{client_ip::ClientIp, csrf::Page, stats},
};

/// An authenticated user.
#[derive(Clone, Debug)]
pub struct Principal {
    /// User id.
    pub user_id: i64,
    /// Role now.
    pub role: Role,
    /// City ids now.
    pub cities: Vec<i64>,
    /// The session this request belongs to.
    pub session_id: String,
    /// Where the request came from.
    pub address: IpAddr,
}

/// A principal whose right to an action was checked, with the scope it holds in.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// On whose data.
    pub scope: Scope,
}

impl Caller {
    /// The cities to restrict a query to; `None` restricts nothing.
    #[must_use]
    pub fn city_filter(&self) -> Option<&[i64]> {
        (self.scope == Scope::Cities).then_some(self.principal.cities.as_slice())
    }

    /// The master to restrict a query to; `None` restricts nothing.
    #[must_use]
    pub fn master_filter(&self) -> Option<i64> {
        (self.scope == Scope::Own).then_some(self.principal.user_id)
    }

    /// Whether the caller may act in a city.
    #[must_use]
    pub fn may_act_in(&self, city_id: i64) -> bool {
        match self.scope {
            Scope::All => true,
            Scope::Cities => self.principal.cities.contains(&city_id),
            Scope::Own => false,
        }
    }

    /// Whether a city is one of the caller's, which is more than acting in it: a master has cities too.
    #[must_use]
    pub fn sees_city(&self, city_id: i64) -> bool {
        self.scope == Scope::All || self.principal.cities.contains(&city_id)
    }

    /// Who the caller is by now, after something that may have taken minutes: the session may have ended
    /// since, or the user have lost the role or the city.
    ///
    /// # Errors
    /// 401, 403, or as the database.
    pub async fn again(&self, db: &mut Conn, action: Action, now: DateTime<Utc>) -> Result<Self, AppError> {
        let Principal { user_id, session_id, address, .. } = &self.principal;
        let user = store::session_user(db, session_id, *user_id, now).await?.ok_or(error::UNAUTHENTICATED)?;
        let scope = policy::scope(user.role, action).ok_or(error::FORBIDDEN)?;
        let (session_id, address) = (session_id.clone(), *address);
        let principal = Principal { user_id: user.id, role: user.role, cities: user.cities, session_id, address };
        Ok(Self { principal, scope })
    }

    async fn new(action: Action, parts: &mut Parts, app: &App) -> Result<Self, AppError> {
        let principal = Principal::from_request_parts(parts, app).await?;
        app.user_limit.check(&principal.user_id.to_string()).await?;
        Self::of(principal, action)
    }

    fn of(principal: Principal, action: Action) -> Result<Self, AppError> {
        match policy::scope(principal.role, action) {
            Some(scope) => Ok(Self { principal, scope }),
            None => Err(error::FORBIDDEN.into()),
        }
    }
}

macro_rules! callers {
    ($($(#[$meta:meta])* $name:ident may $action:ident;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name(Caller);

        impl Deref for $name {
            type Target = Caller;
            fn deref(&self) -> &Caller { &self.0 }
        }

        impl FromRequestParts<App> for $name {
            type Rejection = AppError;
            async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, AppError> {
                Caller::new(Action::$action, parts, app).await.map(Self)
            }
        }
    )*};
}

callers! {
    /// May read service requests.
    RequestReader may ReadRequests;
    /// May create service requests and edit their intake.
    RequestEditor may EditIntake;
    /// May move service requests.
    RequestMover may MoveRequests;
    /// May offer service requests to masters.
    RequestAssigner may AssignMaster;
    /// May delete service requests.
    RequestDeleter may DeleteRequests;
    /// May write comments.
    Commenter may Comment;
    /// May see and link calls.
    CallHandler may Calls;
    /// May read dictionaries.
    DictionaryReader may ReadDictionaries;
    /// May change dictionaries.
    DictionaryManager may ManageDictionaries;
    /// May change campaigns.
    CampaignManager may ManageCampaigns;
    /// Anybody who is signed in, about themselves.
    AccountOwner may OwnAccount;
    /// May read masters.
    MasterReader may ReadMasters;
    /// May edit masters.
    MasterEditor may EditMasters;
    /// May create and remove masters.
    MasterManager may ManageMasters;
    /// May create employees.
    EmployeeCreator may CreateEmployees;
    /// May read, edit and remove employees.
    EmployeeManager may ManageEmployees;
    /// May do everything about administrators.
    AdministratorManager may ManageAdministrators;
    /// May read cash transactions.
    TransactionReader may ReadTransactions;
    /// May write cash transactions.
    TransactionManager may ManageTransactions;
    /// May read files.
    FileReader may ReadFiles;
    /// May remove files.
    FileDeleter may DeleteFiles;
    /// May read the call-centre report.
    CallCentreReporter may CallCentreReport;
    /// May read the reports that show money.
    MoneyReporter may MoneyReports;
    /// May read the business metrics.
    BusinessObserver may BusinessMetrics;
    /// May read how the server is.
    HealthObserver may DetailedHealth;
    /// May see and lift locks, and read the audit log.
    SecurityOfficer may Security;
}

/// Anybody who is signed in, to put an end to what somebody else may be doing in their name. Whoever stole
/// a token can use up the limit of its user, so that one does not count here; that of the address does.
#[derive(Clone, Debug)]
pub struct AccountGuard(Caller);

impl Deref for AccountGuard {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl FromRequestParts<App> for AccountGuard {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, AppError> {
        let principal = Principal::from_request_parts(parts, app).await?;
        Caller::of(principal, Action::OwnAccount).map(Self)
    }
}

/// The session that somebody wants to end, alive or not. A browser may have none any more: it wants to be
/// rid of its cookies.
#[derive(Clone, Debug)]
pub struct Leaving(pub Option<String>);

impl FromRequestParts<App> for Leaving {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, AppError> {
        if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
            let token = bearer(value).ok_or(error::UNAUTHENTICATED)?;
            return Ok(Self(Some(claims(app, &token)?.sid)));
        }
        let page = Page::of(parts, app);
        page.check_origin()?;
        let session = sessions::of_cookies(app, &page.cookies).await?;
        if let Some(session) = &session {
            page.check_token(&app.keys, session)?;
        }
        Ok(Self(session))
    }
}

impl Principal {
    /// Checks that the session is still alive, after a body that took its time to arrive. That is enough:
    /// whatever changes the rights of a user ends their sessions.
    ///
    /// # Errors
    /// 401, or as the database.
    pub async fn check_again(&self, app: &App) -> Result<(), AppError> {
        let mut db = app.db.acquire().await?;
        let user = store::session_user(&mut db, &self.session_id, self.user_id, app.clock.now()).await?;
        user.map(drop).ok_or_else(|| error::UNAUTHENTICATED.into())
    }
}

/// Leaves itself in the request, for whoever reads the body.
impl FromRequestParts<App> for Principal {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, AppError> {
        // With a header of its own, whatever it says, a request has no cookies.
        let (token, page) = if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
            (bearer(value).ok_or(error::UNAUTHENTICATED)?, None)
        } else {
            let mut page = Page::of(parts, app);
            let token = page.cookies.access.take().ok_or(error::UNAUTHENTICATED)?;
            page.check_origin()?;
            (token, Some(page))
        };
        let ClientIp(address) = ClientIp::from_request_parts(parts, app).await?;
        let claims = claims(app, &token)?;
        let user_id: i64 = claims.sub.parse().map_err(|_| error::UNAUTHENTICATED)?;
        let mut db = app.db.acquire_with(Plans::Either).await?;
        let user =
            store::session_user(&mut db, &claims.sid, user_id, app.clock.now()).await?.ok_or(error::UNAUTHENTICATED)?;
        stats::record_user(user.id, user.role);
        if let Some(page) = page {
            page.check_token(&app.keys, &claims.sid)?;
        }
        let principal =
            Self { user_id: user.id, role: user.role, cities: user.cities, session_id: claims.sid, address };
        parts.extensions.insert(principal.clone());
        Ok(principal)
    }
}

fn claims(app: &App, token: &Secret) -> Result<Claims, AppError> {
    app.tokens.verify(token.expose()).map_err(|_| error::UNAUTHENTICATED.into())
}

fn bearer(value: &HeaderValue) -> Option<Secret> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim()))
}
