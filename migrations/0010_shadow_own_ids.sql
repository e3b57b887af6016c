-- What a record is called in a shadow names no other record there: two of the primary's are never written to one, whoever
-- named it. Also read when a person names a record. The ID stands first: an index that begins with the shadow could be
-- taken for any of its records.
create unique index shadow_record_by_own_id on shadow_record (tenant_id, own_id, upstream_id, entity) where not deleted;
