-- Which line of which request made the row, as USER REQUEST_ID LINE, where jobs are submitted as a stream of lines: the same
-- lines sent again make nothing twice.
ALTER TABLE jobs ADD COLUMN submitted_as TEXT;
