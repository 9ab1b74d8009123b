//! `docs/permissions.md`: who may do what, printed from the permission table and the route table.

use platform::{permissions, values::Role};

use crate::route::RouteTable;

/// The page.
#[must_use]
pub fn permission_reference(table: &RouteTable) -> String {
    let mut page = String::from(
        "# Permissions\n\n\
         A role may do all that a lower one may: owner, admin, viewer. Rights reach down the tree of organizations and\n\
         never up or sideways. Whoever may not read a thing is told that there is none (404); whoever may read it, but not\n\
         do this, is told so (403).\n\n\
         This page is printed from the code's own tables: `odoo-saas-api permissions`.\n\n\
         | permission | least role | endpoints |\n| --- | --- | --- |\n",
    );
    for row in permissions::TABLE {
        let endpoints: Vec<String> = table
            .endpoints()
            .filter(|endpoint| endpoint.sketch.permission == Some(row.id))
            .map(|endpoint| format!("`{} {}`", endpoint.method, endpoint.path))
            .collect();
        let role = match row.least {
            Role::Viewer => "viewer",
            Role::Admin => "admin",
            Role::Owner => "owner",
        };
        let limit = match (row.root_only, row.person_only) {
            (true, _) => " of the root organization",
            (false, true) => ", a person",
            (false, false) => "",
        };
        page += &format!("| `{}` | {role}{limit} | {} |\n", row.id, endpoints.join("<br>"));
    }
    let public: Vec<String> = table
        .endpoints()
        .filter(|endpoint| endpoint.sketch.permission.is_none())
        .map(|endpoint| format!("`{} {}`", endpoint.method, endpoint.path))
        .collect();
    page += &format!(
        "\nNo credential is needed for: {}. The document of the API says for each of them why.\n",
        public.join(", ")
    );
    page
}
