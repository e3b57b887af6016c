-- Where a primary that keeps track of its changes is asked for those that came after what was read: the name that its
-- connector has given the place. Null where it keeps no track, or no longer knows the place.
alter table inbound_entity add column changes_place text;
