//! The policy matrix, pure: which role may take which action on whose data. Everything that is not
//! listed is denied. The types that handlers take ([`super::caller`]) are its only users.

use crate::{label_enum, wire_enum};

wire_enum! {
    /// What a user is in the company.
    pub enum Role {
        /// Runs the installation; sees all cities.
        Admin = "admin",
        /// Runs the company in some cities.
        Director = "director",
        /// Assigns masters and watches the work.
        Manager = "manager",
        /// Runs advertising.
        Marketer = "marketer",
        /// Takes calls.
        Operator = "operator",
        /// Goes and repairs.
        Master = "master",
    }
}

label_enum! {
    /// Something a caller may or may not do. Each operation of the OpenAPI document names its action in
    /// `x-action`.
    pub enum Action {
        /// Read service requests and their history, and follow them live.
        ReadRequests = "read_requests",
        /// Create service requests and edit what a client said.
        EditIntake = "edit_intake",
        /// Move a service request; which moves, the state machine says.
        MoveRequests = "move_requests",
        /// Offer a service request to a master.
        AssignMaster = "assign_master",
        /// Delete a service request.
        DeleteRequests = "delete_requests",
        /// Write a comment, attach a file.
        Comment = "comment",
        /// Read calls, recordings and triage, and link a call to a service request.
        Calls = "calls",
        /// Read dictionaries.
        ReadDictionaries = "read_dictionaries",
        /// Change dictionaries.
        ManageDictionaries = "manage_dictionaries",
        /// Change advertising campaigns and their numbers.
        ManageCampaigns = "manage_campaigns",
        /// See who one is, change one's password, sign out.
        OwnAccount = "own_account",
        /// Read masters; a master sees themselves.
        ReadMasters = "read_masters",
        /// Edit a master; a master edits their own contact data.
        EditMasters = "edit_masters",
        /// Create and remove masters, and everything about them.
        ManageMasters = "manage_masters",
        /// Create employees: those who are neither masters nor administrators.
        CreateEmployees = "create_employees",
        /// Read, edit and remove employees.
        ManageEmployees = "manage_employees",
        /// Everything about administrators.
        ManageAdministrators = "manage_administrators",
        /// Read cash transactions and balances.
        ReadTransactions = "read_transactions",
        /// Write cash transactions and reverse them.
        ManageTransactions = "manage_transactions",
        /// Read the files of what one may read: of service requests, of transactions.
        ReadFiles = "read_files",
        /// Remove files.
        DeleteFiles = "delete_files",
        /// Read the report on the call centre.
        CallCentreReport = "call_centre_report",
        /// Read the reports on cities, masters and campaigns, which show money.
        MoneyReports = "money_reports",
        /// Read the business metrics.
        BusinessMetrics = "business_metrics",
        /// Read how the server itself is.
        DetailedHealth = "detailed_health",
        /// See who tries to sign in and who changed what; lift locks.
        Security = "security",
    }
}

/// On whose data an action may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    All,
    /// That of the user's cities.
    Cities,
    /// Service requests assigned to the user.
    Own,
}

/// The matrix. `None` is "may not".
#[must_use]
pub const fn scope(role: Role, action: Action) -> Option<Scope> {
    use Action::{
        AssignMaster, BusinessMetrics, CallCentreReport, Calls, Comment, CreateEmployees, DeleteFiles, DeleteRequests,
        DetailedHealth, EditIntake, EditMasters, ManageAdministrators, ManageCampaigns, ManageDictionaries,
        ManageEmployees, ManageMasters, ManageTransactions, MoneyReports, MoveRequests, OwnAccount, ReadDictionaries,
        ReadFiles, ReadMasters, ReadRequests, ReadTransactions, Security,
    };
    use Role::{Admin, Director, Manager, Marketer, Master, Operator};
    match (role, action) {
        (_, OwnAccount)
        | (
            Master,
            ReadRequests | MoveRequests | Comment | ReadDictionaries | ReadMasters | EditMasters | ReadTransactions
            | ReadFiles | MoneyReports,
        ) => Some(Scope::Own),
        (Admin, _) => Some(Scope::All),
        (
            Director | Manager | Marketer | Operator,
            ReadRequests | EditIntake | MoveRequests | Comment | Calls | ReadDictionaries | ReadMasters | ReadFiles
            | CallCentreReport,
        )
        | (Director | Manager | Marketer, AssignMaster)
        | (
            Director | Manager,
            ManageCampaigns | EditMasters | ManageMasters | CreateEmployees | ReadTransactions | DeleteFiles
            | MoneyReports | BusinessMetrics,
        )
        | (Director, ManageEmployees | ManageTransactions) => Some(Scope::Cities),
        (Manager, ManageEmployees | ManageTransactions)
        | (Operator, AssignMaster)
        | (
            Marketer | Operator,
            ManageCampaigns | EditMasters | ManageMasters | CreateEmployees | ManageEmployees | ReadTransactions
            | ManageTransactions | DeleteFiles | MoneyReports | BusinessMetrics,
        )
        | (
            Master,
            EditIntake | AssignMaster | Calls | ManageCampaigns | ManageMasters | CreateEmployees | ManageEmployees
            | ManageTransactions | DeleteFiles | CallCentreReport | BusinessMetrics,
        )
        | (_, DeleteRequests | ManageDictionaries | ManageAdministrators | DetailedHealth | Security) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The matrix once more, written the other way round: a row a role, a letter an action, in the
    /// order of [`Action::ALL`] (A all, C own cities, O own, – none).
    #[test]
    fn the_matrix_is_the_one_we_promise() {
        let promised = [
            (Role::Admin, "AAAAAAAAAAOAAAAAAAAAAAAAAA"),
            (Role::Director, "CCCC-CCC-COCCCCC-CCCCCCC--"),
            (Role::Manager, "CCCC-CCC-COCCCC--C-CCCCC--"),
            (Role::Marketer, "CCCC-CCC--OC-------C-C----"),
            (Role::Operator, "CCC--CCC--OC-------C-C----"),
            (Role::Master, "O-O--O-O--OOO----O-O--O---"),
        ];
        for (role, row) in promised {
            let actual: String = Action::ALL
                .iter()
                .map(|action| match scope(role, *action) {
                    Some(Scope::All) => 'A',
                    Some(Scope::Cities) => 'C',
                    Some(Scope::Own) => 'O',
                    None => '-',
                })
                .collect();
            assert_eq!(actual, row, "{role:?}");
        }
    }
}
