//! The page of `inspect`.

use super::text::{plural, stays, table};
use super::words::{bytes, percent, shorten, thousands};
use super::{GroupRow, Inspection};

/// The inspection for people; `width` is that of the terminal in characters, none where names shall stay whole.
pub fn inspection_text(inspection: &Inspection, width: Option<usize>) -> String {
    let path = shorten(&inspection.input.path, usize::MAX);
    let size = inspection.input.bytes.map_or_else(String::new, |b| format!(", {}", bytes(b)));
    let mut page = format!("{path}: {} node{}{size}\n\n", inspection.nodes, plural(inspection.nodes));
    let rows = [("parameters", inspection.parameters), ("MACs", inspection.macs)];
    let rows = rows.map(|(name, share)| {
        vec![name.to_owned(), thousands(share.total), thousands(share.prunable), percent(share.prunable, share.total)]
    });
    page.push_str(&table(&["<", "total", "prunable", "share"], rows.into_iter()));
    if inspection.macs_per_dynamic_element {
        page.push_str("MACs are per element of the dynamic axes\n");
    }
    let name_width = width.map_or(usize::MAX, |w| (w / 2).max(16));
    let parts = inspection
        .parts
        .iter()
        .map(|p| vec![shorten(&p.label, name_width), thousands(p.parameters.before), thousands(p.macs.before)]);
    page.push('\n');
    page.push_str(&table(&["<", "parameters", "MACs"], parts));
    let tasks = inspection.tasks.iter().map(|t| {
        let outputs = shorten(&t.outputs.join(", "), name_width);
        vec![shorten(&t.name, name_width), thousands(t.parameters.before), thousands(t.macs.before), outputs]
    });
    page.push('\n');
    page.push_str(&table(&["<task", "parameters", "MACs", "<outputs"], tasks));
    if !inspection.groups.is_empty() {
        page.push('\n');
        page.push_str(&groups(&inspection.groups, inspection.tasks.len(), width));
    }
    page.push('\n');
    if let Some(line) = stays(&inspection.stays, "stay", 5) {
        page.push_str(&line);
        page.push('\n');
    }
    for entry in &inspection.opaque {
        let operator = shorten(&entry.operator, 60);
        let reason = shorten(&entry.reason, 200);
        page.push_str(&format!("{} {operator} node{} opaque: {reason}\n", entry.nodes, plural(entry.nodes)));
    }
    page
}

fn groups(groups: &[GroupRow], n_tasks: usize, width: Option<usize>) -> String {
    // The name takes a third of the line, the reason what the numbers leave of the rest.
    let (name, tasks, reason) = match width {
        Some(width) => {
            let (name, tasks) = ((width / 3).max(16), (width / 8).max(10));
            // 29 characters are the numbers, the gaps between columns and `no: `.
            (name, tasks, width.saturating_sub(name + tasks + 29).max(16))
        }
        None => (usize::MAX, usize::MAX, usize::MAX),
    };
    let rows = groups.iter().map(|group| {
        let feeds = if group.tasks.len() == n_tasks && n_tasks > 1 { "all".to_owned() } else { group.tasks.join("+") };
        vec![
            shorten(&group.name, name),
            thousands(group.channels as u64),
            group.members.len().to_string(),
            shorten(&feeds, tasks),
            match (&group.reason, group.part) {
                (Some(why), _) => format!("no: {}", shorten(why, reason)),
                (None, Some(part)) => format!("yes, {part}"),
                (None, None) if group.approximate => "yes, approximately".to_owned(),
                (None, None) => "yes".to_owned(),
            },
        ]
    });
    table(&["<group", "channels", "members", "<feeds", "<prunable"], rows)
}
