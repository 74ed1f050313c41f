//! What all lists have in common: paging, counts and empty answers (facts sheet, 2 and 3.3).

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::params::{Kind, Params, Spec};
use crate::world::World;

/// A parameter of every list.
pub const KEYWORD: Spec = Spec::new("keyword", Kind::Text);
/// A parameter of every list.
pub const PAGE: Spec = Spec::new("page", Kind::Integer);
/// A parameter of every list.
pub const PAGE_SIZE: Spec = Spec::new("pagesize", Kind::Integer);

/// The part of a list that was asked for: skip so many, take so many.
struct Window {
    skip: usize,
    take: usize,
}

impl Window {
    fn asked_for(params: &Params, world: &World) -> Result<Self, ApiError> {
        let limit = match world.settings.default_page_size {
            -1 => i64::MAX,
            limit => limit,
        };
        let (skip, take) = match (params.integer("page"), params.integer("pagesize")) {
            (None, None) => (0, limit),
            (None, Some(-1)) => (0, i64::MAX),
            (Some(_), None) => return Err(ApiError::invalid("pageSize is required when page is specified")),
            (None, Some(_)) => return Err(ApiError::invalid("page is required when pageSize is specified")),
            (Some(_), Some(-1)) => return Err(ApiError::invalid("page can't be used with pageSize -1")),
            (_, Some(size)) if size > limit => {
                return Err(ApiError::invalid(format!("Page size can't exceed max allowed page size value: {limit}")));
            }
            (Some(page), Some(size)) if page < 1 || size < 1 => {
                return Err(ApiError::invalid("page and pageSize must be positive"));
            }
            (Some(page), Some(size)) => ((page - 1).saturating_mul(size), size),
        };
        let whole = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Self { skip: whole(skip), take: whole(take) })
    }
}

/// A list's answer: the page that was asked for, and how many there are in all; `{}` if there are none.
pub fn list<T>(
    params: &Params,
    world: &World,
    key: &str,
    items: &[T],
    show: impl Fn(&T) -> Value,
) -> Result<Value, ApiError> {
    let window = Window::asked_for(params, world)?;
    if items.is_empty() {
        return Ok(json!({}));
    }
    let page: Vec<_> = items.iter().skip(window.skip).take(window.take).map(show).collect();
    if page.is_empty() || params.is_true("retrieveonlyresourcecount") {
        return Ok(json!({"count": items.len()}));
    }
    Ok(json!({"count": items.len(), key: page}))
}

/// Whether an exact filter that was sent lets a value pass.
pub fn is(params: &Params, name: &str, value: Option<&str>) -> bool {
    params.text(name).is_none_or(|wanted| Some(wanted) == value)
}

/// Whether a list of ids that was sent has this one.
pub fn is_one_of(params: &Params, name: &str, value: &str) -> bool {
    params.list(name).is_none_or(|wanted| wanted.contains(&value))
}

/// Whether the keyword is part of one of the values, in any case.
pub fn has_keyword(params: &Params, values: &[&str]) -> bool {
    let has = |keyword: &str| values.iter().any(|value| value.to_lowercase().contains(&keyword.to_lowercase()));
    params.text("keyword").is_none_or(has)
}

/// Whether the caller sees what this account and project own: an ordinary account its own, and a project's only with
/// `projectid`; root admin everything with `listall` or by id, else its own.
pub fn is_visible(params: &Params, world: &World, account: &str, project: Option<&str>) -> bool {
    let by_id = params.text("id").is_some() || params.text("ids").is_some();
    if world.settings.is_admin() && (params.is_true("listall") || by_id) {
        return true;
    }
    match params.text("projectid") {
        Some("-1") => project.is_some(),
        Some(wanted) => project == Some(wanted),
        None => project.is_none() && account == world.settings.account,
    }
}
